"""The way of frames through a stage: read ahead, computed in order, handed to the next stage or to the reader.

Owns what runs during one Forward call. A lost neighbour ends it with an error, which travels up the pipeline, stage by
stage, to the coordinator. Knows nothing of who may send (`server.py`), nor of what computing is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Never

import grpc

from trireme_proto.errors import PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.batch import Sampled
from trireme_worker.concurrency import first_to_end
from trireme_worker.epoch import Epoch
from trireme_worker.link import ForwardCall, choices_of, forward_to

_EXPLAIN_SECONDS = 1.0
Outcome = asyncio.Future[list[Sampled]]
"""The tokens that a frame's computation samples."""

Compute = Callable[[pb.Frame, int], Outcome]
"""Hands a frame, and when it arrived (nanoseconds since the epoch), to the compute thread."""


class FrameFlow:
    """Takes the frames of epochs through this stage."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def run(self, epoch: Epoch, incoming: AsyncIterator[pb.Frame]) -> int:
        """Until the sender closes its stream; returns the number of frames. A TriremeError where the epoch ends or
        something is lost.
        """
        if not epoch.next_address:
            return await first_to_end(self._pump(epoch, incoming, None), epoch.over())
        async with forward_to(epoch.next_address, epoch.number) as following:
            if not epoch.last_address:
                return await first_to_end(self._pump(epoch, incoming, following), epoch.over(), following.lost())
            async with choices_of(epoch.last_address, epoch.number) as choices:
                return await first_to_end(
                    self._pump(epoch, incoming, following), epoch.over(), following.lost(), _heard(epoch, choices)
                )

    async def _pump(self, epoch: Epoch, incoming: AsyncIterator[pb.Frame], following: ForwardCall | None) -> int:
        """Computes what comes in and hands it on, to the next stage or to the reader; returns the number of frames."""
        frames = 0
        async with aclosing(self.begun(epoch, incoming)) as begun:
            async for frame, outcome in begun:
                sampled = await outcome
                if following is None:
                    epoch.sampled(frame, sampled)
                else:
                    await following.send(frame)
                frames += 1
        if following is not None:
            await following.finish()
        return frames

    async def begun(
        self, epoch: Epoch, incoming: AsyncIterator[pb.Frame]
    ) -> AsyncGenerator[tuple[pb.Frame, Outcome], None]:
        """Frames, each with what will come of it. A frame is read and handed to the compute thread while the one before
        is computed: else it would wait at its sender, whose stage would wait with it, and the compute thread for it.
        """

        async def begin() -> tuple[pb.Frame, Outcome] | None:
            frame = await anext(incoming, None)  # no `aiter`: gRPC's warns when it is made and then never asked
            if frame is None:
                return None
            arrived_ns = time.time_ns()
            if epoch.last_address:
                await epoch.choices.fill(frame)
            return frame, self._compute(frame, arrived_ns)

        coming = asyncio.ensure_future(begin())
        try:
            while (started := await coming) is not None:
                coming = asyncio.ensure_future(begin())
                yield started
        finally:
            await _abandon(coming)


async def _heard(epoch: Epoch, choices: AsyncIterator[pb.StepResult]) -> Never:
    """Listens to the last stage. Where that ends, what it says of the reason comes up the pipeline a moment later."""
    try:
        await epoch.choices.listen(choices)
    except (PipelineUnavailable, grpc.aio.AioRpcError):
        await asyncio.sleep(_EXPLAIN_SECONDS)
        raise


async def _abandon(coming: asyncio.Future[tuple[pb.Frame, Outcome] | None]) -> None:
    """Ends the reading of a frame, and its computation if that has not begun; what they come to does not matter."""
    coming.cancel()
    (found,) = await asyncio.gather(coming, return_exceptions=True)
    if isinstance(found, tuple):
        found[1].cancel()
        await asyncio.gather(found[1], return_exceptions=True)
