"""A real Valkey server that can be killed and started again with its data, stopped, filled and made a replica, and a
relay in front of it that passes bytes late.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store.layout import COMMANDS

_MORE = ("config", "replicaof", "client", "flushall")


class FaultyRedis:
    """The server. `data`: its folder; None: it forgets everything when it ends. Use it as an async context manager."""

    def __init__(self, data: Path | None = None) -> None:
        self._server = EmbeddedRedis(data, commands=(*COMMANDS, *_MORE))
        self._stopped = False
        self._server.start()
        self.url = self._server.url

    @property
    def pid(self) -> int:
        return self._server.pid

    async def admin(self, *command: Any) -> Any:
        """Runs any command."""
        client = Redis.from_url(self.url, driver_info=None)
        try:
            return await client.execute_command(*command)
        finally:
            await client.aclose()

    def kill(self) -> None:
        """SIGKILL, and the end of it."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._server._server is not None
        self._server._server.wait()

    def restart(self) -> None:
        """At the same address and with the same password as before; with its data, where it has a folder for that."""
        self._server.revive()
        assert self._server.url == self.url

    def hang(self) -> None:
        """It takes connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        self._stopped = True

    def go_on(self) -> None:
        """After `hang`."""
        os.kill(self.pid, signal.SIGCONT)
        self._stopped = False

    async def fill(self) -> None:
        """It takes nothing new."""
        await self.admin("CONFIG", "SET", "maxmemory", 1)

    async def make_room(self) -> None:
        """After `fill`."""
        await self.admin("CONFIG", "SET", "maxmemory", 0)

    async def become_replica(self) -> None:
        """Of a server that there is not: it still answers, and takes no writes."""
        await self.admin("REPLICAOF", "127.0.0.1", 1)

    async def become_primary(self) -> None:
        """After `become_replica`."""
        await self.admin("REPLICAOF", "NO", "ONE")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stopped:
            self.go_on()
        self._server.stop()


class Relay:
    """Passes bytes between who connects to `url` and a server, each piece `seconds` late. Async context manager."""

    def __init__(self, url: str, socket: Path) -> None:
        """url: unix:// of the server. socket: where to listen."""
        user, _, self._target = url.partition("@")
        self.url = f"{user}@{socket}"
        self.seconds = 0.0
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._joined, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()  # a task that had not begun has closed nothing
        await self._server.wait_closed()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        self._writers.append(far_writer)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._pass(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    await asyncio.sleep(self.seconds)
                    target.write(data)
        finally:
            target.close()
