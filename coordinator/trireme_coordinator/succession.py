"""The stages from one coordinator to the next: those that run are taken over where they are, weights and all.

What workers were told when they were started says what they are: no other record is kept. A stage that went to another
node stays there; one that was lost together with the coordinator starts anew, as after any loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.ray_cluster import Settings
from trireme_coordinator.stages import Stages
from trireme_proto.errors import PipelineUnavailable
from trireme_worker.actor import StageSettings

_NOWHERE = Node("", "", "")
"""Of a stage that is lost."""
_ATTEMPTS = 3
"""Times that stages are placed and started anew before a coordinator gives up."""


class Workers(Protocol):
    """As much of a RayCluster as this needs. All methods block."""

    def nodes(self) -> list[Node]: ...
    def adopt(self, stages: int) -> dict[int, StageSettings]: ...
    def disown(self) -> None: ...
    def end(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this coordinator would start."""

    settings: Settings
    stages: int
    layers: int
    """Of the model."""
    shared: bool
    """Whether there may be workers of another coordinator."""


class Succession:
    """What a reign begins and ends with. `fresh` places stages where none run."""

    def __init__(
        self,
        workers: Workers,
        stages: Stages,
        wanted: Wanted,
        fresh: Callable[[], Awaitable[list[Placed]]],
        say: Callable[[str], None],
    ) -> None:
        self._workers, self._stages, self._wanted = workers, stages, wanted
        self._fresh, self._say = fresh, say

    async def begin(self) -> None:
        """Has all stages running, or those that are left of them: the engine starts the others. TriremeError."""
        if running := await asyncio.to_thread(self._adopted):
            self._stages.assign(running, run=True)
            left = sum(stage.node is not _NOWHERE for stage in running)
            self._say(f"Taking over {left} running {_stages(left)}")
        else:
            await self._start()
        for stage in self._stages.placed:
            layers = f"layers {stage.layers.start} to {stage.layers.stop - 1}"
            self._say(f"Stage {stage.stage} on {stage.node.name or 'no node yet'}: {layers}")

    async def _start(self) -> None:
        """All stages anew. A mistake shows here; a node that fell silent meanwhile, or seemed to, is no mistake."""
        for again in reversed(range(_ATTEMPTS)):
            self._stages.assign(await self._fresh())
            count = len(self._stages.placed)
            self._say(f"Starting {count} {_stages(count)}: loading, checking and compiling")
            try:
                await self._stages.launch()
            except PipelineUnavailable as error:
                if not again:
                    raise
                await asyncio.to_thread(self._workers.end)  # they may get other layers now
                self._say(f"{error.message} Trying again")
            else:
                return

    def disown(self) -> None:
        """Leaves them to another coordinator."""
        self._workers.disown()
        self._stages.assign([])

    async def end(self) -> None:
        """Ends them."""
        await asyncio.to_thread(self._workers.end)
        self._stages.assign([])

    def _adopted(self) -> list[Placed]:
        """The stages of the coordinator before; none where they are not what this one would have started."""
        if not self._wanted.shared:
            return []
        told = self._workers.adopt(self._wanted.stages)
        nodes = {node.node_id: node for node in self._workers.nodes()}
        placed = placed_of(told, self._wanted.stages, self._wanted.layers, nodes)
        if placed and all(self._as_wanted(placed[number], each) for number, each in told.items()):
            return placed
        if told:
            self._say("The stages that run were started with other settings; they are replaced")
            self._workers.end()
        return []

    def _as_wanted(self, stage: Placed, told: StageSettings) -> bool:
        found = replace(stage.node, node_id=told.node_id)
        return self._wanted.settings(replace(stage, node=found), told.host) == told


def placed_of(told: Mapping[int, StageSettings], stages: int, layers: int, nodes: Mapping[str, Node]) -> list[Placed]:
    """All stages, from what those that are left were told; a lost one has the layers between its neighbours, and no
    node. Nothing where that cannot be told, or does not give each of the model's layers to one stage.
    """
    between = [
        told[n - 1].end_layer if n - 1 in told else told[n].first_layer if n in told else 0 for n in range(1, stages)
    ]
    ranges = [range(a, b) for a, b in pairwise([0, *between, layers])]
    right = all((each.first_layer, each.end_layer) == (ranges[n].start, ranges[n].stop) for n, each in told.items())
    if not told or not right or not all(ranges):
        return []
    where = [nodes.get(told[n].node_id, _NOWHERE) if n in told else _NOWHERE for n in range(stages)]
    return [Placed(n, ranges[n], where[n]) for n in range(stages)]


def _stages(count: int) -> str:
    return "stage" if count == 1 else "stages"
