"""A TCP relay whose bytes can be delayed, held back or lost with their connections.

Knows nothing of what passes through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger: closing sends RST
_CHUNK = 1 << 16


class Relay:
    """Passes bytes between whoever connects to `address` and `target` (HOST:PORT). A context manager."""

    def __init__(self, target: str, host: str = "127.0.0.1") -> None:
        """Listens on `host`."""
        self.address, self._host = "", host
        self.delay = 0.0
        """Seconds that each piece is kept before it goes on."""
        self._target = target
        self._flows = asyncio.Event()
        self._open = True
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._flows.set()
        self._server = await asyncio.start_server(self._accept, self._host, 0)
        self.address = f"{self._host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Nothing passes, nothing is said."""
        self._flows.clear()

    def cut(self) -> None:
        """Every connection is reset, and new ones as well."""
        self._open = False
        for writer in self._writers:
            _reset(writer)
        for task in self._tasks:
            task.cancel()

    def heal(self) -> None:
        """All passes at once again; what was held back goes on."""
        self.delay, self._open = 0.0, True
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with self._known(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            if self._open:
                await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions, until either ends."""
        host, port = self._target.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        with self._known(far_writer):
            ways = [
                asyncio.ensure_future(self._pass(reader, far_writer)),
                asyncio.ensure_future(self._pass(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flows.wait()
            writer.write(piece)
            await writer.drain()

    @contextlib.contextmanager
    def _known(self, writer: asyncio.StreamWriter):
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
