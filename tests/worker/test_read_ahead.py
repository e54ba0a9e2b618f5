"""A stage takes the next frame in before it has computed the one that it has, and no more than that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.batch import Sampled
from trireme_worker.compute_thread import ComputeThread
from trireme_worker.epoch import Epoch
from trireme_worker.frame_flow import FrameFlow


class _Steps:
    """In place of a stepper: notes the frames it is given."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bool]] = []

    def step(self, frame: pb.Frame, arrived_ns: int) -> list[Sampled]:
        self.taken.append((frame.step, arrived_ns > 0))
        return []


def _flow(thread: ComputeThread) -> tuple[FrameFlow, _Steps]:
    steps = _Steps()
    return FrameFlow(lambda frame, arrived_ns: thread.in_order(steps.step, frame, arrived_ns)), steps


@pytest.fixture
def thread() -> Iterator[ComputeThread]:
    thread = ComputeThread()
    yield thread
    thread.close()


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_frame_is_taken_in_ahead_and_no_more(thread: ComputeThread) -> None:
    asked: list[int] = []

    async def frames() -> AsyncIterator[pb.Frame]:
        for step in range(1, 6):
            asked.append(step)
            yield pb.Frame(step=step)

    flow, steps = _flow(thread)
    seen = []
    async with aclosing(flow.begun(Epoch(1), frames())) as begun:
        async for frame, outcome in begun:
            await _settled()  # as long as it takes, nothing further is asked for
            seen.append((frame.step, len(asked)))
            assert await outcome == []
    assert seen == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 5)]
    assert steps.taken == [(step, True) for step in range(1, 6)]


async def test_leaving_ends_the_reading(thread: ComputeThread) -> None:
    ended = asyncio.Event()

    async def frames() -> AsyncIterator[pb.Frame]:
        try:
            yield pb.Frame(step=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    flow, _ = _flow(thread)
    async with aclosing(flow.begun(Epoch(1), frames())) as begun:
        async for _frame, _outcome in begun:
            await asyncio.sleep(0)
            break
    assert ended.is_set()


async def test_a_call_that_is_over_before_the_first_read_makes_no_reader(thread: ComputeThread) -> None:
    class Frames:
        """Like gRPC's reader of requests: what `aiter` makes of it warns unless it is used."""

        made = 0

        def __aiter__(self) -> AsyncIterator[pb.Frame]:
            self.made += 1
            return self

        async def __anext__(self) -> pb.Frame:
            raise StopAsyncIteration

    frames, (flow, _) = Frames(), _flow(thread)
    begun = flow.begun(Epoch(1), frames)
    first = asyncio.ensure_future(anext(begun))
    await asyncio.sleep(0)  # it waits now for a read that has not started
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert frames.made == 0


async def test_leaving_takes_back_what_has_not_begun(thread: ComputeThread) -> None:
    async def frames() -> AsyncIterator[pb.Frame]:
        for step in range(1, 4):
            yield pb.Frame(step=step)

    working, hold = threading.Event(), threading.Event()

    def stand_still() -> None:
        working.set()
        hold.wait()

    flow, steps = _flow(thread)
    try:
        still = thread.in_order(stand_still)
        await asyncio.to_thread(working.wait)
        async with aclosing(flow.begun(Epoch(1), frames())) as begun:
            _, first = await anext(begun)
            await _settled()  # the second one is handed over, too
            first.cancel()
    finally:
        hold.set()
    await still
    await thread.in_order(lambda: None)
    assert steps.taken == []
