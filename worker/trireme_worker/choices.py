"""What the last stage sampled, as the first one hears of it: a row that follows it gets its token here.

Lives on the event loop, for one epoch. Knows nothing of calls or kernels.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Never

from trireme_proto.errors import FrameRefused, PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb


class Choices:
    """The token that each slot was given last."""

    def __init__(self) -> None:
        self._step = 0  # of the last result, which may have sampled nothing
        self._latest: dict[int, tuple[int, pb.SampledToken]] = {}
        self._news = asyncio.Event()

    async def listen(self, results: AsyncIterator[pb.StepResult]) -> Never:
        """Takes in results for as long as they come. PipelineUnavailable when there are no more."""
        async for result in results:
            self._step = result.step
            self._latest.update((token.slot, (result.step, token)) for token in result.tokens)
            self._news.set()
        raise PipelineUnavailable("The last stage ended its epoch.")

    async def fill(self, frame: pb.Frame) -> None:
        """Waits for the tokens that the rows follow, and puts them in. FrameRefused where there are none."""
        end = 0
        for row in frame.rows:
            end += row.count
            if 0 < row.follows < frame.step and end <= len(frame.token_ids):  # else it is refused where all frames are
                frame.token_ids[end - 1] = await self._chosen(row)

    async def _chosen(self, row: pb.Row) -> int:
        while self._step < row.follows:
            self._news.clear()
            await self._news.wait()
        step, token = self._latest.get(row.slot, (0, None))
        if token is None or (step, token.position) != (row.follows, row.position):
            raise FrameRefused(f"step {row.follows} sampled nothing for position {row.position} of its slot")
        return token.token_id
