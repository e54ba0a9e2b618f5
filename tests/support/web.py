"""A web server for a folder, with byte ranges, that breaks when a test says so."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Web:
    """What is served, how, and what was asked for."""

    root: Path
    ranges: bool = True
    """Whether it can send from the middle of a file."""
    sizes: bool = True
    """Whether it says how long a file is."""
    breaks: dict[str, list[int]] = field(default_factory=dict)
    """By file: the connection is cut after so many bytes of a reply; one entry for each reply."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """By file: a status instead of a reply, one for each request."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """(file, offset) of each GET."""
    url: str = ""

    def sent(self, name: str) -> list[int]:
        """Offsets from which a file was asked for."""
        return [offset for file, offset in self.asked if file == name]


@contextlib.contextmanager
def served(root: Path) -> Iterator[Web]:
    """Serves the folder on loopback."""
    web = Web(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def do_HEAD(self) -> None:
        self._reply(body=False)

    def do_GET(self) -> None:
        self._reply(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, *, body: bool) -> None:
        name = self.path.lstrip("/")
        file = self.web.root / name
        if statuses := self.web.statuses.get(name):
            self._ended(statuses.pop(0))
        elif not file.is_file():
            self._ended(404)
        else:
            self._send(name, file.read_bytes(), body=body)

    def _ended(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, name: str, data: bytes, *, body: bool) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = 0, len(data)
        if found and self.web.ranges:
            begin, end = int(found[1]), min(len(data), int(found[2] or len(data)) + 1)
        self.send_response(206 if found and self.web.ranges else 200)
        if self.web.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if found and self.web.ranges:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        if self.web.sizes:
            self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if body:
            self.web.asked.append((name, begin))
            cuts = self.web.breaks.get(name)
            self.wfile.write(data[begin : min(end, begin + cuts.pop(0))] if cuts else data[begin:end])
        self.close_connection = True
