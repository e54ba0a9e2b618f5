"""A pipeline whose stages take modelled times on a virtual clock: real are the scheduler and its micro-batches alone.

A frame waits for its stage to be free, computes for as long as the model of that stage says, and takes a hop to the
next one. Tokens are the same for everybody; nothing depends on them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trireme_coordinator.scheduler import Batch, Scheduler
from trireme_coordinator.scheduler import Sequence as Request

StageTime = Callable[[Batch], int]
"""Nanoseconds that a stage computes a micro-batch."""


def line(fixed: int, per_token: int) -> StageTime:
    """So many nanoseconds a step, and so many more a token."""
    return lambda batch: fixed + per_token * len(batch.token_ids)


@dataclass
class Modelled:
    """Runs a scheduler. `token_times[sequence]`: when each of its tokens came back."""

    scheduler: Scheduler
    stages: Sequence[StageTime]
    hop_ns: int = 0
    now: int = 0
    token_times: dict[Request, list[int]] = field(default_factory=dict)
    busy_ns: list[int] = field(default_factory=list)
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self._free = [0] * len(self.stages)
        self.busy_ns = [0] * len(self.stages)
        self._results: list[tuple[int, int, Batch, list[int], int]] = []
        self._arrivals: list[tuple[int, int, Request]] = []
        self._order = 0

    def arrive(self, at: int, request: Request) -> None:
        """The request is submitted at that time."""
        self._order += 1
        heapq.heappush(self._arrivals, (at, self._order, request))

    def run(self, until: Callable[[], bool]) -> int:
        """Goes on until the condition holds; returns the time."""
        while not until():
            self._fill()
            times = [q[0][0] for q in (self._results, self._arrivals) if q]
            if wait := self.scheduler.wait_ns(self.now):
                times.append(self.now + wait)
            assert times, "nothing is under way and nothing will come"
            self.now = min(times)
            while self._arrivals and self._arrivals[0][0] == self.now:
                self.scheduler.submit(heapq.heappop(self._arrivals)[2])
            if self._results and self._results[0][0] == self.now:
                self._complete()
        return self.now

    def _fill(self) -> None:
        while (batch := self.scheduler.schedule(self.now)) is not None:
            at, waited, computed = self.now, 0, []
            for i, stage in enumerate(self.stages):
                at += self.hop_ns
                start = max(at, self._free[i])
                waited += start - at
                computed.append(stage(batch))
                self.busy_ns[i] += computed[-1]
                at = self._free[i] = start + computed[-1]
            at += self.hop_ns
            heapq.heappush(self._results, (at, batch.step, batch, computed, at - self.now - waited))
            self.most_under_way = max(self.most_under_way, len(self._results))

    def _complete(self) -> None:
        _, step, batch, computed, round_ns = heapq.heappop(self._results)
        tokens = [(row.slot, 7) for row in batch.rows for _ in range(row.sampled)]
        _, told = self.scheduler.complete(step, tokens)
        self.scheduler.learn(batch, computed, round_ns)
        for sequence in told:
            self.token_times.setdefault(sequence, []).append(self.now)
        for row in batch.rows:
            if row.sequence.finish is not None:
                self.scheduler.drop(row.sequence)
