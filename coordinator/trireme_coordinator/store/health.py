"""When to ask a store that did not answer again. Pure but for its clock and its dice, which are given to it.

    answers --no answer--> away, until a pause is over --one call tries--> answers, or away for longer

While it is away every call is refused at once, so that a Redis that hangs costs one waiting call and not one for each
request. Pauses are drawn from [0, longest), and the longest doubles up to a bound ("full jitter"): many coordinators do
not come back in step.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

Jitter = Callable[[float], float]
"""Draws a pause, in seconds, from the longest one."""


def full_jitter(longest: float) -> float:
    """Uniform in [0, longest)."""
    return random.uniform(0, longest)  # noqa: S311  (no secret)


class Breaker:
    """Knows whether a store is worth asking. Belongs to one event loop."""

    def __init__(
        self,
        *,
        first: float = 0.1,
        longest: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Jitter = full_jitter,
    ) -> None:
        """`first` and `longest`: bounds of the first pause and of any, in seconds."""
        self._first, self._longest = first, longest
        self._clock, self._jitter = clock, jitter
        self._failures = 0
        self._until = 0.0
        self._trying = False

    @property
    def away(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._failures > 0

    def wait(self) -> float | None:
        """Seconds after which to ask; None: ask now, and tell how it went (`answered`, `failed` or `gave_up`)."""
        if not self.away:
            return None
        left = self._until - self._clock()
        if left > 0 or self._trying:
            return max(left, self._first)
        self._trying = True
        return None

    def answered(self) -> None:
        """The store answered."""
        self._failures, self._trying = 0, False

    def failed(self) -> None:
        """It did not."""
        bound = min(self._first * 2.0 ** min(self._failures, 30), self._longest)
        self._failures, self._trying = self._failures + 1, False
        self._until = self._clock() + self._jitter(bound)

    def gave_up(self) -> None:
        """The caller went away before there was an answer: the next call tries."""
        self._trying = False
