"""Asks every stage for signs of life, each on its own, and says which of them are lost, why, and after how long.

Owns the questions and their deadlines; what a stage that answers is worth is decided in `vigilance.py`. Does not use
what the pipeline itself sends: a pipeline at rest is watched as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Never

import grpc

from trireme_coordinator.loss import Cause, StageLoss, StageLost
from trireme_coordinator.vigilance import PERIOD_S, SILENT_S, Flow, Patience, Pulse, Stillness
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub
from trireme_worker.concurrency import first_to_end

_BETWEEN = -1
"""In place of a stage's number: the patience with what is on its way between stages."""
_OWN_PAUSE_S = 0.25
"""A question that took so much longer than its deadline says that we ourselves stood still."""


class Watch:
    """Over the stages behind `channels`, in pipeline order, of one epoch. `under_way`: whether frames were sent whose
    results have not come.
    """

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        patience: dict[int, Patience],
        under_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self._under_way = under_way
        self._stubs = [StageStub(channel) for channel in channels]
        self._alive = [time.monotonic()] * len(self._stubs)
        self._still = [Stillness(patience.setdefault(i, Patience()), self._alive[i]) for i in range(len(self._stubs))]
        self._flow = Flow(len(self._stubs), patience.setdefault(_BETWEEN, Patience()), time.monotonic())

    async def lost(self) -> Never:
        """Waits for the first verdict; StageLost with all stages that are lost by then."""
        found = await first_to_end(*(self._one(i) for i in range(len(self._stubs))))
        await self.examine(found)
        raise StageLost([found])  # not reached: `examine` raises it

    async def examine(self, known: StageLoss | None = None) -> list[int]:
        """Asks all of them once, now, but for one that is known to be lost: the epoch that each knows. StageLost with
        those that are lost.
        """
        others = [i for i in range(len(self._stubs)) if known is None or i != known.stage]
        answers = await asyncio.gather(*(self._ask(i) for i in others))
        losses = [answer for answer in (known, *answers) if isinstance(answer, StageLoss)]
        if losses:  # a stage that is lost is reason enough for frames not to arrive
            raise StageLost([loss for loss in losses if loss.cause is not Cause.CUT] or losses)
        return [answer.epoch for answer in answers if isinstance(answer, pb.PulseResponse)]

    async def _one(self, stage: int) -> StageLoss:
        while True:
            answer = await self._ask(stage)
            if isinstance(answer, StageLoss):
                return answer
            await asyncio.sleep(PERIOD_S)

    async def _ask(self, stage: int) -> pb.PulseResponse | StageLoss:
        asked = time.monotonic()
        try:
            answer = await self._stubs[stage].Pulse(pb.PulseRequest(), timeout=SILENT_S)
        except grpc.aio.AioRpcError as error:
            if time.monotonic() - asked > SILENT_S + _OWN_PAUSE_S:
                self._alive = [time.monotonic()] * len(self._alive)
                return await self._ask(stage)
            return self._loss(stage, _CAUSES.get(error.code(), Cause.ENDED))
        now, before = time.monotonic(), self._still[stage].since
        progress = (answer.epoch, answer.steps, answer.progress)
        if self._still[stage].take(now, busy=answer.busy, progress=progress):
            return StageLoss(stage, Cause.HUNG, now - before)
        self._alive[stage] = now
        cut = self._flow.take(
            now, stage, Pulse(answer.steps, answer.progress, answer.busy), under_way=self._under_way()
        )
        return answer if cut is None else StageLoss(cut, Cause.CUT, now - before)

    def _loss(self, stage: int, cause: Cause) -> StageLoss:
        return StageLoss(stage, cause, time.monotonic() - self._alive[stage])


_CAUSES = {grpc.StatusCode.UNAVAILABLE: Cause.DEAD, grpc.StatusCode.DEADLINE_EXCEEDED: Cause.SILENT}
