"""Answers that are read while coordinators die: were they exact, and how long did nothing come?

Reads streams over and over and notes when tokens came. Knows nothing of processes: who is killed when is its caller's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic

from trireme import AsyncClient, AsyncGenerationStream, Generation
from trireme_proto.errors import TriremeError
from trireme_proto.load import nearest_rank

_PROMPT = "Once upon a time"
_AFTERMATH_SECONDS = 0.5
"""Tokens that were on their way come for a moment after a kill; the gap begins within this time."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it."""

    kills: int
    streams: int
    answers: int
    """Answers read to their end."""
    wrong: int
    """Those of them with other tokens or another text than undisturbed."""
    failed: int
    """Those that ended with an error."""
    gap_p50_s: float
    """Of the gaps of all streams at all kills: seconds in which no token came."""
    gap_p95_s: float
    gap_max_s: float


@dataclass(slots=True)
class Readers:
    """`streams` callers, each reading one answer after the other, each with a seed of its own."""

    client: AsyncClient
    streams: int
    tokens: int
    clock: Callable[[], float] = monotonic
    answers: int = 0
    wrong: int = 0
    errors: list[TriremeError] = field(default_factory=list)
    arrivals: list[list[float]] = field(default_factory=list)
    _want: list[Generation] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _ending: bool = False

    async def start(self) -> None:
        """Takes the undisturbed answers, then begins to read."""
        self._want = [await self._stream(n).result() for n in range(self.streams)]
        self.arrivals = [[] for _ in range(self.streams)]
        self._tasks = [asyncio.ensure_future(self._read(n)) for n in range(self.streams)]

    async def stop(self) -> None:
        """Returns when the answers that are being read have ended."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def flow_again(self, since: float) -> None:
        """Returns when every stream has had a token after what was on its way at `since`."""
        while any(not times or times[-1] <= since + _AFTERMATH_SECONDS for times in self.arrivals):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)

    def figures(self, kills: Sequence[float]) -> Figures:
        """Of kills at these times of the clock."""
        gaps = sorted(gap_at(kill, times) for kill in kills for times in self.arrivals) or [0.0]
        return Figures(
            kills=len(kills),
            streams=self.streams,
            answers=self.answers,
            wrong=self.wrong,
            failed=len(self.errors),
            gap_p50_s=nearest_rank(gaps, 50),
            gap_p95_s=nearest_rank(gaps, 95),
            gap_max_s=gaps[-1],
        )

    def _stream(self, seed: int) -> AsyncGenerationStream:
        return self.client.generate(_PROMPT, max_tokens=self.tokens, temperature=0.8, ignore_eos=True, seed=seed)

    async def _read(self, n: int) -> None:
        while not self._ending:
            stream = self._stream(n)
            try:
                async for _ in stream:
                    self.arrivals[n].append(self.clock())
            except TriremeError as error:
                self.errors.append(error)
            else:
                self.answers += 1
                self.wrong += (stream.token_ids, stream.text) != (self._want[n].token_ids, self._want[n].text)


def gap_at(kill: float, times: Sequence[float]) -> float:
    """The longest time without a token that began before the kill's aftermath was over, and ended after the kill."""
    return max((b - a for a, b in pairwise(times) if a < kill + _AFTERMATH_SECONDS and b > kill), default=0.0)
