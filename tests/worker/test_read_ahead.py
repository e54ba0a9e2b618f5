"""A stage takes the next frame in before it has computed the one that it has, and no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast

from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.batch import Sampled
from trireme_worker.server import Epoch, StageService
from trireme_worker.stepper import Stepper


class _Steps:
    """In place of a stepper: notes the frames it is given."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bool]] = []

    def step(self, frame: pb.Frame, arrived_ns: int) -> list[Sampled]:
        self.taken.append((frame.step, arrived_ns > 0))
        return []


def _service() -> tuple[StageService, _Steps]:
    steps = _Steps()
    return StageService(cast(Stepper, steps)), steps


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_frame_is_taken_in_ahead_and_no_more() -> None:
    asked: list[int] = []

    async def frames() -> AsyncIterator[pb.Frame]:
        for step in range(1, 6):
            asked.append(step)
            yield pb.Frame(step=step)

    service, steps = _service()
    seen = []
    async with aclosing(service._begun(Epoch(1), frames())) as begun:
        async for frame, outcome in begun:
            await _settled()  # as long as it takes, nothing further is asked for
            seen.append((frame.step, len(asked)))
            assert await outcome == []
    assert seen == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 5)]
    assert steps.taken == [(step, True) for step in range(1, 6)]
    await service.close()


async def test_leaving_ends_the_reading() -> None:
    ended = asyncio.Event()

    async def frames() -> AsyncIterator[pb.Frame]:
        try:
            yield pb.Frame(step=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    service, _ = _service()
    async with aclosing(service._begun(Epoch(1), frames())) as begun:
        async for _frame, _outcome in begun:
            await asyncio.sleep(0)
            break
    assert ended.is_set()
    await service.close()


async def test_a_call_that_is_over_before_the_first_read_makes_no_reader() -> None:
    class Frames:
        """Like gRPC's reader of requests: what `aiter` makes of it warns unless it is used."""

        made = 0

        def __aiter__(self) -> AsyncIterator[pb.Frame]:
            self.made += 1
            return self

        async def __anext__(self) -> pb.Frame:
            raise StopAsyncIteration

    frames, (service, _) = Frames(), _service()
    begun = service._begun(Epoch(1), frames)
    first = asyncio.ensure_future(anext(begun))
    await asyncio.sleep(0)  # it waits now for a read that has not started
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert frames.made == 0
    await service.close()
