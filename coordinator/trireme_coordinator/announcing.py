"""Keeps the health service true: SERVING while requests are served, as /readyz says it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from trireme_coordinator.engine import Engine
from trireme_coordinator.metrics.readiness import Readiness
from trireme_coordinator.public_server import PublicServer
from trireme_coordinator.reign import Reign

_LOOK_SECONDS = 0.25
"""How often progress is looked at; a loss is told at once."""


async def announce(readiness: Readiness, engine: Engine, reign: Reign, public: PublicServer) -> None:
    """Until cancelled. The server begins as not healthy."""
    healthy = False
    while True:
        if healthy != (not readiness.reason()):
            healthy = not healthy
            await public.set_healthy(healthy=healthy)
        if not healthy:
            await reign.serving.wait()
            await engine.ready.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS if healthy or readiness.reason() else 0):
                await engine.lost.wait()
