"""What Ray says of its nodes and resources. Asked in a thread, now and then: its head answers.

Ray's own metrics, of each node, come from an agent that belongs to `ray[default]`; where there is one, they join ours
by `ip` (docs/metrics.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trireme_coordinator.metrics.values import Readings

log = logging.getLogger(__name__)
_PAUSE_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
_RESOURCES = ("CPU", "memory", "object_store_memory")


@dataclass(frozen=True, slots=True)
class RayState:
    """The cluster, as Ray knows it."""

    alive: Mapping[str, str]
    """Addresses by the names of nodes."""
    dead: int
    total: Mapping[str, float]
    available: Mapping[str, float]


class RayWatch:
    """Keeps the last answer. `ask` blocks."""

    def __init__(self, ask: Callable[[], RayState]) -> None:
        self.state: RayState | None = None
        self._ask = ask

    async def keep(self) -> None:
        """Asks every few seconds, until cancelled. A head that does not answer is no news of ours."""
        while True:
            try:
                self.state = await asyncio.wait_for(asyncio.to_thread(self._ask), _ANSWER_SECONDS)
            except Exception as error:  # noqa: BLE001  (whatever Ray raises: figures must not end anything)
                self.state = None
                log.debug("Ray did not say how it is: %s", type(error).__name__)
            await asyncio.sleep(_PAUSE_SECONDS)

    def read(self, readings: Readings) -> None:
        """Adds what is known."""
        if (state := self.state) is None:
            return
        readings.put("trireme_ray_nodes", len(state.alive), "alive")
        readings.put("trireme_ray_nodes", state.dead, "dead")
        for name, ip in state.alive.items():
            readings.put("trireme_ray_node_info", 1, name, ip)
        for kind, amounts in (("total", state.total), ("available", state.available)):
            for resource in _RESOURCES:
                readings.put("trireme_ray_resources", amounts.get(resource, 0.0), resource, kind)
