"""Several `trireme serve` processes on one Ray cluster and one Redis, each on a port of its own that it keeps."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

READY = re.compile(r"Trireme is ready on (\S+:\d+) \((.*)\)")


class Coordinator:
    """One process, and those that take its place."""

    def __init__(self, port: int, options: list[str], environment: dict[str, str]) -> None:
        self.address = f"127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "trireme", "serve", "--listen", self.address, *options]
        self._environment = environment
        self.process: subprocess.Popen[str] | None = None
        self.errors = ""

    def launch(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment
        )

    def ready(self) -> str:
        """What it says of itself, once it is ready."""
        assert self.process is not None
        assert self.process.stdout is not None
        found = READY.search(line := self.process.stdout.readline())
        assert found, line or self.process.communicate()[1]
        return found[2]

    def start(self) -> str:
        self.launch()
        return self.ready()

    def end(self, number: int) -> int:
        """The exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        self.errors = self.process.communicate(timeout=60)[1]
        code, self.process = self.process.returncode, None
        return code


class Coordinators:
    """Context manager: Ray and Redis, and `count` coordinators that stand in for each other; the first leads."""

    def __init__(self, count: int = 2, *options: str) -> None:
        self._count, self._options = count, options
        self.all: list[Coordinator] = []

    @property
    def target(self) -> str:
        """All addresses, for a client."""
        return ",".join(each.address for each in self.all)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "trireme_coordinator.local_cluster"]
        self.cluster = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.cluster.stdout is not None
        told = {}
        while "=" in (line := self.cluster.stdout.readline()):
            name, _, value = line.strip().partition("=")
            told[name] = value
        environment = {name: value for name, value in told.items() if name.isupper()}
        options = ["--redis-url", told["redis_url"], "--ray-address", told["ray_address"], *self._options]
        options.append("--insecure-no-stage-tls")  # one machine, though Ray calls it by its address in the network
        self.all = [Coordinator(port, options, os.environ | environment) for port in free_ports(self._count)]
        try:
            for each in self.all:
                each.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for each in self.all:
            each.end(signal.SIGTERM)
        self.cluster.send_signal(signal.SIGTERM)
        self.cluster.communicate(timeout=60)


def free_ports(count: int) -> list[int]:
    """Ports that stay free while a coordinator is gone: not those from which the system serves connections."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_768), 1000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no port is free")
