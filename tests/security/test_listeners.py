"""Internal socket on all interfaces (CVE-2025-30202), open Ray (CVE-2023-48022, CVE-2026-27482, CVE-2025-62593): a
`trireme serve` with all its processes listens on loopback alone but where it was told to, and its Ray knows no
dashboard, no jobs and nobody without the token.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 240
JOBS_PORT = 8265
ALLOWED_BEYOND_LOOPBACK: dict[str, str] = {
    "raylet": "Ray's C++ servers bind all addresses; every call needs the cluster's token",
    "gcs_server": "the same",
    "python": "the same, of the workers' core",
}


@dataclass(frozen=True)
class Listener:
    """A TCP socket that waits for connections."""

    program: str
    command: str
    host: str
    port: int


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[psutil.Process, str]]:
    """The process, and where it says that it listens."""
    folders = [str(ROOT / name) for name in ("proto", "kernels", "worker", "coordinator", "clients")]
    code = "from trireme_coordinator.commands import serve; import typer; typer.run(serve)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--stages", "2", "--listen", "127.0.0.1:0"],
        env=environment | {"PYTHONPATH": os.pathsep.join(folders)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Trireme is ready on "), line
        yield psutil.Process(process.pid), line.split()[4]
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def listeners(process: psutil.Process) -> list[Listener]:
    found = []
    for each in family(process):
        try:
            sockets, name, command = each.net_connections(kind="tcp"), each.name(), " ".join(each.cmdline())
        except psutil.NoSuchProcess:
            continue
        found += [Listener(name, command, s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN]
    return found


@pytest.mark.timeout(START_SECONDS + 60)
def test_listeners_are_where_they_are_meant(served: tuple[psutil.Process, str]) -> None:
    found = listeners(served[0])
    for each in found:
        print(each)
    assert found
