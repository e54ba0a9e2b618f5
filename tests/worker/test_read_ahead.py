"""A stage asks for the next frame before it computes the one that it has, and for no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.server import _read_ahead


async def test_one_frame_is_read_ahead_and_no_more() -> None:
    asked: list[int] = []

    async def frames() -> AsyncIterator[pb.Frame]:
        for step in range(1, 6):
            asked.append(step)
            yield pb.Frame(step=step)

    seen = []
    async with aclosing(_read_ahead(frames())) as arrivals:
        async for frame, arrived_ns in arrivals:
            for _ in range(20):  # as long as it takes, nothing further is asked for
                await asyncio.sleep(0)
            seen.append((frame.step, arrived_ns > 0, len(asked)))
    assert seen == [(1, True, 2), (2, True, 3), (3, True, 4), (4, True, 5), (5, True, 5)]


async def test_leaving_ends_the_reading() -> None:
    ended = asyncio.Event()

    async def frames() -> AsyncIterator[pb.Frame]:
        try:
            yield pb.Frame(step=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with aclosing(_read_ahead(frames())) as arrivals:
        async for _ in arrivals:
            await asyncio.sleep(0)
            break
    assert ended.is_set()


async def test_a_call_that_is_over_before_the_first_read_makes_no_reader() -> None:
    class Frames:
        """Like gRPC's reader of requests: what `aiter` makes of it warns unless it is used."""

        made = 0

        def __aiter__(self) -> AsyncIterator[pb.Frame]:
            self.made += 1
            return self

        async def __anext__(self) -> pb.Frame:
            raise StopAsyncIteration

    frames = Frames()
    arrivals = _read_ahead(frames)
    first = asyncio.ensure_future(anext(arrivals))
    await asyncio.sleep(0)  # it waits now for a read that has not started
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert frames.made == 0
