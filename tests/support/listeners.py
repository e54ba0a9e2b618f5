"""Listeners for the engine that remember what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.telemetry import StepReport
from trireme_proto.errors import TriremeError
from trireme_proto.v1 import stage_pb2 as pb


class Answer:
    """All that the engine told about one sequence. `on_token(answer)` is called after each token; what it returns goes
    back to the engine.
    """

    def __init__(self, on_token: Callable[[Answer], Finish | None] = lambda _: None) -> None:
        self.tokens: list[int] = []
        self.events: list[str] = []
        self.prefilled = 0
        self.decoded = 0
        self.timings: list[Sequence[pb.StageTiming]] = []
        self.reason: Finish | None = None
        self.error: TriremeError | None = None
        self._on_token = on_token
        self._done = asyncio.Event()
        self._progress = asyncio.Event()

    def admitted(self) -> None:
        self.events.append("admitted")

    def timed(self, *, prefill: bool, tokens: int, step: StepReport) -> None:
        self.timings.append(step.timings)
        if prefill:
            self.prefilled += tokens
        else:
            self.decoded += tokens
        self._progress.set()

    def token(self, token_id: int) -> Finish | None:
        self.tokens.append(token_id)
        self._progress.set()
        return self._on_token(self)

    def finished(self, reason: Finish) -> None:
        self.events.append("finished")
        self.reason = reason
        self._end()

    def failed(self, error: TriremeError) -> None:
        self.events.append("failed")
        self.error = error
        self._end()

    async def until(self, condition: Callable[[Answer], bool], seconds: float = 90) -> None:
        """Returns when the condition holds; it is looked at whenever something was told."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                self._progress.clear()
                await self._progress.wait()

    async def done(self, seconds: float = 90) -> list[int]:
        """The tokens, once the answer has ended well."""
        async with asyncio.timeout(seconds):
            await self._done.wait()
        if self.error is not None:
            raise self.error
        return self.tokens

    def _end(self) -> None:
        self._done.set()
        self._progress.set()
