"""One epoch of a stage: who sends, who reads, what waits for them, and whether it is over.

Owns the queues of results and choices. Lives on the event loop. Knows nothing of calls, layers or kernels.
"""

from __future__ import annotations

import asyncio
from typing import Never

from trireme_proto.errors import PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.batch import Sampled
from trireme_worker.choices import Choices


class Epoch:
    """The calls of one building of the pipeline: a sender of frames, and on the last stage a reader of results."""

    def __init__(self, number: int = 0, next_address: str = "", last_address: str = "") -> None:
        self.number, self.next_address, self.last_address = number, next_address, last_address
        self.sender = False
        """Whether frames come in right now."""
        self.reader = False
        """Whether somebody has asked for the results."""
        self.ended = asyncio.Event()
        self.results: asyncio.Queue[pb.StepResult | None] = asyncio.Queue()
        """None comes last, as in `chosen`."""
        self.chosen: asyncio.Queue[pb.StepResult | None] | None = None
        """For the first stage, once it listens."""
        self.choices = Choices()
        """On the first stage: what it heard."""

    def end(self) -> None:
        """No frame is computed any more; the results that are there can still be read."""
        if not self.ended.is_set():
            self.ended.set()
            if self.chosen is not None:
                self.chosen.put_nowait(None)
            self.results.put_nowait(None)

    def sampled(self, frame: pb.Frame, sampled: list[Sampled]) -> None:
        """The last stage has computed a frame. The first stage, which the next token waits for, is told first."""
        tokens = [pb.SampledToken(slot=s.slot, position=s.position, token_id=s.token_id) for s in sampled]
        if self.chosen is not None:
            self.chosen.put_nowait(pb.StepResult(step=frame.step, tokens=tokens))
        self.results.put_nowait(
            pb.StepResult(step=frame.step, tokens=tokens, timings=frame.timings, sent_ns=frame.sent_ns)
        )

    async def over(self) -> Never:
        """PipelineUnavailable when the epoch ends."""
        await self.ended.wait()
        raise PipelineUnavailable("This epoch is over.")
