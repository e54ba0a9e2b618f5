"""What stages report, asked for when somebody wants to know and not more often than once a second; and how fast each
can read its memory, measured once, when there is nothing to compute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from trireme_coordinator.engine import Engine
from trireme_coordinator.placement import Placed
from trireme_proto.v1 import stage_pb2 as pb

Reports = list[tuple[Placed, pb.ReportResponse | None]]
_FRESH_SECONDS = 1.0
_ANSWER_SECONDS = 2.0
"""A stage reports between two steps: one that takes longer is said to be down in this scrape, and asked again."""
_MEASURE_SECONDS = 10.0
"""The first time on a machine a kernel is compiled."""
_LOOK_SECONDS = 1.0


class StageReports:
    """The last reports. `placed`: the stages, a list that changes in place."""

    def __init__(self, engine: Engine, placed: Sequence[Placed], clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._placed, self._clock = engine, placed, clock
        self._last: Reports = []
        self._asked = float("-inf")
        self._asking = asyncio.Lock()

    async def get(self) -> Reports:
        """Each stage with its report, None where it gave none; empty where there is no pipeline."""
        async with self._asking:
            if self._clock() - self._asked >= _FRESH_SECONDS:
                self._last = await self._ask()
                self._asked = self._clock()
            return self._last

    async def _ask(self) -> Reports:
        placed, pipeline = list(self._placed), self._engine.pipeline
        if pipeline is None:
            return [(stage, None) for stage in placed]
        return list(zip(placed, await pipeline.reports(_ANSWER_SECONDS), strict=False))


class Bandwidths:
    """Bytes a second at which each stage can read its memory, by the address of its process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, float] = {}

    def of(self, stage: int) -> float:
        """0: not known."""
        addresses = self._engine.pipeline.addresses if self._engine.pipeline is not None else []
        return self._known.get(addresses[stage], 0.0) if stage < len(addresses) else 0.0

    async def keep(self) -> None:
        """Measures the stages that are not known, one after the other, whenever nothing runs. Until cancelled."""
        while True:
            await self._engine.ready.wait()
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Measures those that are not known, as long as nothing runs."""
        pipeline = self._engine.pipeline
        if pipeline is None:
            return
        self._known = {address: rate for address, rate in self._known.items() if address in pipeline.addresses}
        for stage, address in enumerate(pipeline.addresses):
            if address in self._known:
                continue
            if self._engine.busy:
                return
            if rate := await pipeline.measure(stage, _MEASURE_SECONDS):
                self._known[address] = rate
