"""The stages of a deployment through their losses: where each one is, and how it comes back.

Owns the list of placed stages, which changes when one moves. Whether a stage is lost is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from trireme_coordinator.loss import Cause, StageLoss
from trireme_coordinator.placement import Node, Placed, relocate
from trireme_coordinator.ray_cluster import Settings
from trireme_proto.errors import PipelineUnavailable


class Workers(Protocol):
    """As much of a RayCluster as this needs. All methods block."""

    def living(self) -> list[Node]: ...
    def missing(self, placed: Sequence[Placed]) -> list[int]: ...
    def launch(self, placed: Sequence[Placed], settings: Settings) -> list[str]: ...
    def discard(self, stages: Sequence[int]) -> None: ...


class Stages:
    """What the engine launches and discards. `needed`: bytes that a stage takes."""

    def __init__(self, workers: Workers, settings: Settings, needed: Callable[[Placed], int]) -> None:
        self.placed: list[Placed] = []
        """In pipeline order; the same list always."""
        self._workers, self._settings, self._needed = workers, settings, needed
        self._complete = False
        self._cut: set[int] = set()

    def assign(self, placed: Sequence[Placed], *, run: bool = False) -> None:
        """The stages from now on. `run`: they were started before, so that one without a process is a lost one."""
        self.placed[:] = placed
        self._complete = run

    async def launch(self) -> list[str]:
        """Addresses in pipeline order once all stages serve; those without a process get one, where they were or
        elsewhere. PipelineUnavailable where there is no place; StartupError.
        """
        return await asyncio.to_thread(self._launch)

    async def discard(self, losses: Sequence[StageLoss]) -> None:
        """The processes of these stages are not used again."""
        self._cut |= {loss.stage for loss in losses if loss.cause is Cause.CUT}
        await asyncio.to_thread(self._workers.discard, [loss.stage for loss in losses])

    def _launch(self) -> list[str]:
        missing = self._workers.missing(self.placed) if self._complete else []
        if missing:
            self.placed[:] = self._relocated(missing, self._workers.living())
        addresses = self._workers.launch(self.placed, self._settings)
        self._complete = True
        self._cut.clear()
        return addresses

    def _relocated(self, missing: Sequence[int], nodes: Sequence[Node]) -> list[Placed]:
        """A stage that was cut off from its neighbour goes to another node, where there is room on one."""
        needed = [self._needed(stage) for stage in self.placed]
        cut_off = {self.placed[i].node.node_id for i in self._cut}
        if cut_off:
            with suppress(PipelineUnavailable):
                return relocate(self.placed, missing, [n for n in nodes if n.node_id not in cut_off], needed)
        return relocate(self.placed, missing, nodes, needed)
