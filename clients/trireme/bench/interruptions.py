"""Streams that are read while something else is disturbed on purpose: do their tokens come later than they do anyway?

Notes when each token of an answer came; times between answers do not count. Knows nothing of processes: what is
disturbed, and when, is its caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from time import monotonic

from trireme import AsyncClient, AsyncGenerationStream, Generation
from trireme_proto.errors import TriremeError

_PROMPT = "Once upon a time"
Window = tuple[float, float]
"""Begin and end by the clock, seconds."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one token after the other in an answer, seconds."""

    tokens: int
    p50_s: float
    p99_s: float
    longest_s: float


@dataclass(slots=True)
class Readers:
    """`streams` callers, each reading one greedy answer after the other."""

    client: AsyncClient
    streams: int
    tokens: int
    clock: Callable[[], float] = monotonic
    answers: int = 0
    wrong: int = 0
    errors: list[TriremeError] = field(default_factory=list)
    steps: list[Window] = field(default_factory=list)
    """When a token came, and the one before it in the same answer."""
    _want: Generation | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _ending: bool = False

    async def start(self) -> None:
        """Takes the undisturbed answer, then begins to read."""
        self._want = await self._stream().result()
        self._tasks = [asyncio.ensure_future(self._read()) for _ in range(self.streams)]

    async def stop(self) -> None:
        """Returns when the answers that are being read have ended."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    def latency(self, windows: Iterable[Window]) -> Latency:
        """Of the tokens that came within the windows."""
        return latency_of([b - a for begin, end in windows for a, b in self.steps if begin <= b < end])

    def _stream(self) -> AsyncGenerationStream:
        return self.client.generate(_PROMPT, max_tokens=self.tokens, temperature=0.0, ignore_eos=True)

    async def _read(self) -> None:
        while not self._ending:
            stream, last = self._stream(), 0.0
            try:
                async for _ in stream:
                    now = self.clock()
                    if last:
                        self.steps.append((last, now))
                    last = now
            except TriremeError as error:
                self.errors.append(error)
            else:
                self.answers += 1
                self.wrong += self._want is None or stream.token_ids != self._want.token_ids


def latency_of(seconds: Sequence[float]) -> Latency:
    """Zeros where there are too few for percentiles."""
    if len(seconds) < 2:
        return Latency(len(seconds), 0.0, 0.0, max(seconds, default=0.0))
    cuts = quantiles(seconds, n=100, method="inclusive")
    return Latency(len(seconds), cuts[49], cuts[98], max(seconds))
