"""A virtual clock: things happen in the order of their times, and of two at one time in the order of their making."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Events:
    """What is still to happen. `now`: seconds, those of what happens at the moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Has `act` called at a moment that is not over."""
        if moment < self.now:
            raise ValueError(f"{moment} is over: it is {self.now}")
        heapq.heappush(self._heap, (moment, next(self._numbers), act))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._heap:
            self.now, _, act = heapq.heappop(self._heap)
            act()
