"""What became of pages, and how long a page store that did not answer is left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_PAUSE_SECONDS = (1.0, 30.0)
"""How long a store that did not answer is left alone: at first, and at most."""
Clock = Callable[[], float]
"""Seconds, as time.monotonic."""


@dataclass
class Counters:
    """What became of pages."""

    written: int = 0
    known: int = 0
    """In the store already."""
    skipped: int = 0
    """Not written: too many were waiting, or the store did not answer."""
    fetched: int = 0
    damaged: int = 0
    failures: int = 0
    """Times that the store did not answer."""


class Patience:
    """With a store that does not answer. Any method may be called from any thread."""

    def __init__(self, counters: Counters, clock: Clock = time.monotonic) -> None:
        """Counts failures in `counters`."""
        self.pause = 0.0
        """Seconds, of the last pause; 0 after an answer."""
        self._counters, self._clock = counters, clock
        self._until = 0.0
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether the store is left alone now."""
        return self._clock() < self._until

    def failed(self) -> None:
        """Each failure doubles the pause; those that come while there is one count as the same."""
        with self._lock:
            if not self.over:
                self._counters.failures += 1
                shortest, longest = _PAUSE_SECONDS
                self.pause = min(max(2 * self.pause, shortest), longest)
                self._until = self._clock() + self.pause

    def answered(self) -> None:
        """The next pause is a short one again."""
        self.pause = 0.0
