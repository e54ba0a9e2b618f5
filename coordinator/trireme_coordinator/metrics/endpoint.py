"""/metrics, /healthz and /readyz over HTTP, by aiohttp. GET alone, bounded, and closed to pages of other sites.

A page in somebody's browser can reach a port that only the browser's machine sees, under a name of the page's own that
leads there (DNS rebinding). So a request's Host must be an address, this machine or a name that was given.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from trireme_coordinator.metrics.prometheus import CONTENT_TYPE, exposition
from trireme_coordinator.metrics.values import Readings
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_HOST = re.compile(r"(?P<name>[^\s:\[\]/@]+|\[[0-9A-Fa-f:.%]+\])(:[0-9]{1,5})?")
_LINE_BYTES = 4096
_HEADERS = 32
_IDLE_SECONDS = 75.0
_TEXT = "text/plain; charset=utf-8"


class Endpoint:
    """Serves at HOST:PORT. ConfigurationError where that is not free."""

    def __init__(
        self, readings: Callable[[], Awaitable[Readings]], reason: Callable[[], str], hosts: Iterable[str] = ()
    ) -> None:
        """`reason`: why the server is not ready, empty where it is. `hosts`: names, beside addresses and this machine,
        under which it may be asked.
        """
        self._readings, self._reason = readings, reason
        self._hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self._scraping = asyncio.Semaphore(1)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Serves from now on, at `address`."""
        app = web.Application(middlewares=[self._guarded], client_max_size=1)
        for path, handler in (("/metrics", self._metrics), ("/healthz", _alive), ("/readyz", self._ready)):
            app.router.add_get(path, handler, allow_head=False)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_HEADERS,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connected, host.strip("[]"), port)
        except OSError as error:
            raise ConfigurationError(f"--metrics-listen: {host}:{port} cannot be listened on.") from error
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _connected(self) -> asyncio.Protocol:
        """A connection more; where there are too many, the oldest ends, whatever it waits for."""
        manager = self._runner.server if self._runner is not None else None
        if manager is None:
            raise ValueError("the endpoint has not been started")
        connections = manager.connections
        if len(connections) >= LIMITS.metric_connections:
            connections[0].force_close()
        return manager()

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not self._knows(request.headers.get("Host", "")):
            return web.Response(status=403, text="This name is not one of this server's.\n")
        return await handler(request)

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"].strip("[]").rstrip(".").lower()
        return name in self._hosts or _is_address(name)

    async def _metrics(self, _: web.Request) -> web.Response:
        async with self._scraping:  # one at a time: who asks more often waits
            body = exposition(await self._readings())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._reason()
        return web.Response(
            status=503 if reason else 200, text=f"{reason or 'ready'}\n", headers={"Content-Type": _TEXT}
        )


async def _alive(_: web.Request) -> web.Response:
    return web.Response(text="alive\n")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
