"""`trireme serve` over three stages with its metrics on, a Redis of the test's own, and clients that keep it at work.

Stages are found among the server's processes and ended or frozen by their ids.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from tests.support.coordinator_processes import READY, free_ports

from trireme import Client
from trireme.errors import SessionStoreUnavailable, TriremeError
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store import layout
from trireme_worker import page_redis

STAGES = 3
_STAGE = "ray::StageProcess"
_STORY = "Once upon a time there was a ship with three rows of oars. "
_CLIENTS = 3
_STARTS = 3
"""Ray gives a node 30 s to start, which a machine that is busy with other things may not make."""


class Cluster:
    """Context manager: Redis and server; `work` for the load."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._redis = EmbeddedRedis(commands=(*layout.COMMANDS, *page_redis.COMMANDS, "info"))
        ports = free_ports(2)
        self.address, self.metrics = (f"127.0.0.1:{port}" for port in ports)
        self._over = threading.Event()
        self._load: list[threading.Thread] = []
        self.failed: list[TriremeError] = []
        """What the clients were told that they did not ask for."""

    def __enter__(self) -> Self:
        self._redis.start()
        try:
            self._serve()
        except BaseException:
            self._redis.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for each in self._load:
            each.join(120)
        self._server.send_signal(signal.SIGTERM)
        self._server.communicate(timeout=120)
        self._redis.stop()

    def work(self) -> None:
        """Clients begin, and go on until the end."""
        self._load = [threading.Thread(target=self._ask, args=(i,)) for i in range(_CLIENTS)]
        for each in self._load:
            each.start()

    def stages(self) -> list[psutil.Process]:
        """Processes of the stages that run, in no order."""
        family = psutil.Process(self._server.pid).children(recursive=True)
        return [each for each in family if _title(each).startswith(_STAGE)]

    def kill_a_stage(self) -> None:
        self.stages()[0].kill()

    def freeze_redis(self) -> None:
        """It takes connections and answers nothing."""
        os.kill(self._redis.pid, signal.SIGSTOP)

    def thaw_redis(self) -> None:
        os.kill(self._redis.pid, signal.SIGCONT)

    def _serve(self) -> None:
        command = [
            *(sys.executable, "-m", "trireme", "serve", "--stages", str(STAGES), "--listen", self.address),
            *("--metrics-listen", self.metrics, "--redis-url", self._redis.url, "--kv-store-gb", "1"),
        ]
        for _ in range(_STARTS):
            with (self._folder / "serve.log").open("wb") as log:
                self._server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            assert self._server.stdout is not None
            if READY.search(self._server.stdout.readline()):
                return
            self._server.terminate()
            self._server.communicate()
        raise RuntimeError((self._folder / "serve.log").read_text())

    def _ask(self, number: int) -> None:
        """One caller: long prompts that begin alike, conversations, one answer not waited for, one mistake; again."""
        with Client(self.address, timeout=120, patience=60) as client:
            while not self._over.is_set():
                try:
                    _conversation(client, number)
                    _cancelled(client)
                    _mistaken(client)
                except SessionStoreUnavailable as error:  # while Redis is frozen
                    self._over.wait(error.retry_after or 1)
                except TriremeError as error:
                    self.failed.append(error)


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def _conversation(client: Client, number: int) -> None:
    stream = client.generate(_STORY * 4, max_tokens=40, temperature=0.0)
    first = stream.result()
    client.generate(f"Rower {number} said", session=first.session_id, max_tokens=40, seed=number).result()


def _cancelled(client: Client) -> None:
    with client.generate(_STORY, max_tokens=200) as stream:
        next(iter(stream))


def _mistaken(client: Client) -> None:
    with suppress(TriremeError):
        client.generate("x", max_tokens=-1).result()
