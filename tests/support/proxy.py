"""A TCP proxy on loopback that can be cut: both sides see a reset, as when a machine or a process dies."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger: closing sends RST


class Proxy:
    """Passes bytes between whoever connects to `address` and `target` (HOST:PORT)."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = target
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self._ends, self._connect), "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stall(self) -> None:
        """Bytes no longer pass, and nobody is told: a partition without a sound."""
        for end in self._ends:
            end.peer = None

    async def cut(self) -> None:
        """Nobody gets through any more, now or later."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        ends = list(self._ends)
        for end in ends:
            end.reset()
        await asyncio.gather(*(end.closed.wait() for end in ends))
        await self._server.wait_closed()
        self._server = None

    def _connect(self, near: _End) -> None:
        task = asyncio.ensure_future(self._reach(near))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _reach(self, near: _End) -> None:
        """Opens the far end of a connection and lets both talk."""
        host, port = self._target.split(":")
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: _End(self._ends, lambda _: None), host, int(port))
        except OSError:
            near.reset()
            return
        near.peer, far.peer = far, near
        for end in (near, far):
            end.transport.resume_reading()


class _End(asyncio.Protocol):
    """One of the two connections that a proxy joins."""

    transport: asyncio.Transport

    def __init__(self, ends: set[_End], made: Callable[[_End], None]) -> None:
        self.peer: _End | None = None
        self.closed = asyncio.Event()
        self._ends, self._made = ends, made

    def reset(self) -> None:
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ends.add(self)
        self.transport.pause_reading()  # until there is somebody to pass it to
        self._made(self)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends.discard(self)
        self.closed.set()
        if self.peer is not None:
            self.peer.transport.close()
