"""One request over three stages in a real tracing backend, Arize Phoenix, and its spans as that gives them back.

    make trace-backend        installs Phoenix (800 MB) into an environment of its own, and runs this

Starts Phoenix and `trireme serve` on free loopback ports, and stops both. Prints the tree as the backend has it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from tests.support.ports import free_port

from trireme import Client
from trireme.cli.server_process import ServerProcess, serve_command

STAGES, TOKENS = 3, 220
PROMPT = "Once upon a time, there was"
SECONDS = 300.0


class Phoenix:
    """The backend, while its `with` block lasts."""

    def __init__(self, program: Path) -> None:
        self._program, self.web, self.grpc = program, free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Self:
        told = {"PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": str(self.web), "PHOENIX_GRPC_PORT": str(self.grpc)}
        told |= {"PHOENIX_WORKING_DIR": self._folder.name, "PHOENIX_TELEMETRY_ENABLED": "false"}
        command = [str(self._program), "serve"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=os.environ | told, stdout=quiet, stderr=quiet)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def spans(self) -> list[dict[str, Any]]:
        """All spans of the default project, without those that are not there yet."""
        return list(self._get("/v1/projects/default/spans?limit=1000")["data"])

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=10) as answer:
            return json.loads(answer.read())

    def _wait(self) -> None:
        ends = time.monotonic() + SECONDS
        while True:
            try:
                self._get("/v1/projects")
            except OSError:
                if time.monotonic() > ends or self._process.poll() is not None:
                    raise
                time.sleep(0.5)
            else:
                return


def ask(phoenix: Phoenix, html: Path | None) -> str:
    """Serves over three stages, asks for an answer, and returns its trace's id once the server has ended."""
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{phoenix.grpc}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with ServerProcess(serve_command(STAGES, "--trace-share", "1", "--prefill-chunk", "4"), environment=told) as server:
        target = server.wait_ready(SECONDS, print)
        with Client(target, timeout=SECONDS) as client:
            client.generate(PROMPT, max_tokens=40, temperature=0.0, ignore_eos=True).result()  # warms up
            prompt = "A small dog went to the park. " + PROMPT
            answer = client.generate(prompt, max_tokens=TOKENS, temperature=0.0, ignore_eos=True).result()
        if html is not None:
            command = [
                sys.executable,
                "-m",
                "trireme",
                "trace",
                answer.trace_id,
                "--html",
                str(html),
                "--target",
                target,
            ]
            subprocess.run(command, check=True)
    return answer.trace_id


def fetched(phoenix: Phoenix, trace_id: str) -> list[dict[str, Any]]:
    """The spans of a trace, as the backend gives them back, once they are all there."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        spans = [span for span in phoenix.spans() if span["context"]["trace_id"] == trace_id]
        if any(span["name"] == "deliver" for span in spans):
            return spans
        time.sleep(0.5)
    raise SystemExit("the backend did not get the trace within a minute")


def milliseconds(span: dict[str, Any]) -> float:
    """How long a span took."""
    times = (datetime.fromisoformat(span[name]) for name in ("start_time", "end_time"))
    start, end = times
    return (end - start).total_seconds() * 1e3


def tree(spans: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Spans by path."""
    known = {span["context"]["span_id"]: span for span in spans}

    def path(span: dict[str, Any]) -> str:
        parent = known.get(span["parent_id"] or "")
        return span["name"] if parent is None else f"{path(parent)}/{span['name']}"

    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: each["start_time"]):
        found[path(span)].append(span)
    return dict(found)


def check(found: dict[str, list[dict[str, Any]]]) -> None:
    """Says what is wrong with the tree, and ends."""
    wanted = {"generate", "generate/admit/tokenize", "generate/queue/prefix lookup", "generate/prefill/chunk"}
    wanted |= {f"generate/{phase}" for phase in ("admit", "queue", "prefill", "decode", "deliver")}
    wanted |= {f"generate/{phase}/stage {i}" for phase in ("prefill", "decode") for i in range(STAGES)}
    expect(set(found) == wanted, f"the tree has other spans: {sorted(set(found) ^ wanted)}")
    root, decode = found["generate"][0], found["generate/decode"][0]
    phases = sum(milliseconds(found[f"generate/{phase}"][0]) for phase in ("admit", "queue", "prefill", "decode"))
    expect(abs(phases / milliseconds(root) - 1) < 0.02, f"admit + queue + prefill + decode are {phases:.1f} ms")
    stages = [found[f"generate/decode/stage {i}"][0]["attributes"] for i in range(STAGES)]
    parts = sum(stage[f"trireme.{part}_ms"] for stage in stages for part in ("wire", "wait", "compute"))
    whole = parts + decode["attributes"]["trireme.coordinator_ms"]
    expect(abs(whole / milliseconds(decode) - 1) < 0.05, f"the stages add up to {whole:.1f} ms")
    expect(len({stage["trireme.process_id"] for stage in stages}) == STAGES, "the stages are one process")
    print(f"admit + queue + prefill + decode: {phases / milliseconds(root):.2%} of the request")
    print(f"wire + wait + compute of the stages: {parts / milliseconds(decode):.2%} of decode, with the")
    print(f"coordinator's turns {whole / milliseconds(decode):.2%}")


def expect(true: bool, otherwise: str) -> None:
    """Ends with a sentence where something is not so."""
    if not true:
        raise SystemExit(otherwise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phoenix", type=Path, help="the program `phoenix`")
    parser.add_argument("--html", type=Path, help="write `trireme trace --html` of the request there, too")
    options = parser.parse_args()
    with Phoenix(options.phoenix) as phoenix:
        trace_id = ask(phoenix, options.html)
        found = tree(fetched(phoenix, trace_id))
    for path, spans in found.items():
        for span in spans:
            print(f"{milliseconds(span):10.2f} ms  {path}")
    check(found)


if __name__ == "__main__":
    main()
