"""How Redis is: our own pings, and what it says about itself. On a connection of its own, bounded, in the background.

The user that we are in Redis may not be allowed to ask for INFO; then there are pings only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from trireme_coordinator.metrics.values import HOP_BOUNDS, Histogram, Readings
from trireme_coordinator.store.redis_link import RedisLink
from trireme_proto.errors import SessionStoreUnavailable

_PAUSE_SECONDS = 5.0
_ANSWER_SECONDS = 2.0
_GAUGES = {
    "used_memory": "trireme_redis_used_memory_bytes",
    "maxmemory": "trireme_redis_max_memory_bytes",
    "connected_clients": "trireme_redis_connected_clients",
    "evicted_keys": "trireme_redis_evicted_keys_total",
    "total_commands_processed": "trireme_redis_commands_total",
}


class RedisWatch:
    """Of one Redis; `role`: what it is for us. Must be made inside the running event loop."""

    def __init__(self, url: str, role: str) -> None:
        self.up = False
        self.pings = Histogram(HOP_BOUNDS)
        self.info: Mapping[str, float] = {}
        self.role = role
        self._link = RedisLink(url, _ANSWER_SECONDS)

    async def keep(self) -> None:
        """Looks every few seconds, until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await self._link.close()

    async def look(self) -> None:
        """One ping, and what Redis says about itself."""
        self.up, self.info = False, {}
        with suppress(SessionStoreUnavailable):
            async with self._link.answering():
                began = time.perf_counter()
                await self._link.client.ping()
                self.pings.add(time.perf_counter() - began)
            self.up = True
            async with self._link.answering():
                self.info = _numbers(await self._link.client.info())

    def read(self, readings: Readings) -> None:
        """Adds what is known."""
        readings.put("trireme_redis_up", float(self.up), self.role)
        readings.put("trireme_redis_ping_seconds", self.pings, self.role)
        for key, name in _GAUGES.items():
            if key in self.info:
                readings.put(name, self.info[key], self.role)


def _numbers(info: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(info[key]) for key in _GAUGES if isinstance(info.get(key), int | float)}
