"""Who runs: sequences wait here until a slot and the pages of their longest possible length are free.

Owns the queue, the running sequences and what tenants have of both. Whose turn it is comes first, as long as that one
fits; a higher priority of the same tenant takes the room of lower ones.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from trireme_coordinator.scheduler.budget import PAGE_TOKENS, Budget
from trireme_coordinator.scheduler.config import SchedulerConfig
from trireme_coordinator.scheduler.fair import FairQueue, Shares
from trireme_coordinator.scheduler.lanes import Lanes
from trireme_coordinator.scheduler.restoring import Restoring
from trireme_coordinator.scheduler.sequence import Sequence
from trireme_proto.errors import Overloaded

Key = TypeVar("Key")


class Admission:
    """The waiting and the running ones of a scheduler."""

    def __init__(self, config: SchedulerConfig, budget: Budget, lanes: Lanes, restoring: Restoring) -> None:
        self._config, self._budget, self._lanes, self._restoring = config, budget, lanes, restoring
        self.shares = Shares()
        self.waiting = FairQueue(self.shares)
        self.running: dict[Sequence, None] = {}
        self._priorities: Counter[int] = Counter()  # of the running ones
        self._tenants: Counter[str] = Counter()  # sequences of each, waiting or running
        self._arrivals = 0
        self._blocked: tuple[Sequence, int] | None = None  # who had no room, and `budget.freed` at that time

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue. Overloaded when its tenant's is full; ValueError where it could never run."""
        if len(sequence.tokens) >= self._config.context or self._config.most_pages(sequence) > self._config.pages:
            raise ValueError(f"a prompt of {len(sequence.tokens)} tokens leaves no room for an answer")
        if (waiting := self.waiting.count(sequence.tenant)) >= self._config.queue:
            raise Overloaded(f"{waiting} requests are waiting already; try again later.", retry_after=1.0)
        if not self._tenants[sequence.tenant]:
            self.shares.enter(sequence.tenant)
            self._lanes.shares.enter(sequence.tenant)
        self._tenants[sequence.tenant] += 1
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self.waiting.add(sequence, sequence.arrival)

    def admit(self, now_ns: int = 0) -> None:
        """Whose turn it is comes first, as long as that one fits. `now_ns`: noted for those who are given a place."""
        while (first := self.waiting.first()) is not None and self._place(first):
            self.shares.chosen(first.tenant)
            self.shares.charge(first.tenant, first.pending)
            self.waiting.remove(first)
            self.running[first] = None
            first.placed_ns = now_ns
            self._priorities[first.priority] += 1
            if not self._restoring.want(first):
                self._lanes.move(first)

    def drop(self, sequence: Sequence) -> None:
        """Forgets a sequence. One that finished has its slot parked for its session; what a caller gave up is freed on
        every stage by the next frame.
        """
        if sequence.slot is not None:
            if sequence.session_id and sequence.finish is not None:
                held = tuple(sequence.tokens[: sequence.computed])
                self._budget.park(sequence.slot, sequence.session_id, held, sequence.fed)
            else:
                self._budget.free(sequence.slot)
            self.leave(sequence)
        elif not self.waiting.remove(sequence):
            return
        _count_down(self._tenants, sequence.tenant)

    def restart(self) -> None:
        """Every running one starts over from its tokens, in the old order."""
        for sequence in list(self.running):
            self.leave(sequence)
            sequence.setbacks += 1
            self.waiting.add(sequence, sequence.arrival)

    def leave(self, sequence: Sequence) -> None:
        """It does not run any more, and has nothing computed."""
        self._lanes.rest(sequence)
        self._restoring.leave(sequence)
        del self.running[sequence]
        _count_down(self._priorities, sequence.priority)
        sequence.slot, sequence.computed, sequence.fed = None, 0, 0

    def _place(self, sequence: Sequence) -> bool:
        """Gives it a slot, taken from lower priorities if need be."""
        if self._blocked == (sequence, self._budget.freed):
            return False
        if not self._find_room(sequence):
            victims = self._victims(sequence)
            for victim in victims:
                self._preempt(victim)
            if not victims or not self._find_room(sequence):
                self._blocked = (sequence, self._budget.freed)
                return False
        sequence.admissions += 1
        if sequence.generated == sequence.answered:  # else it starts over in mid-answer, and keeps what was true before
            sequence.cached = sequence.computed
        return True

    def _find_room(self, sequence: Sequence) -> bool:
        pages = self._config.most_pages(sequence)
        parked = self._budget.unpark(sequence.session_id, pages, sequence.tokens)
        if parked is not None:
            sequence.slot, sequence.computed, sequence.fed = parked.slot, len(parked.tokens), parked.held
        elif (found := self._budget.reserve(pages, sequence.tenant, sequence.tokens)) is not None:
            sequence.slot = found[0]
            sequence.computed = sequence.fed = found[1] * PAGE_TOKENS
            self._budget.evict(sequence.session_id)  # what is kept for the session is not what it goes on from
        return sequence.slot is not None

    def _victims(self, sequence: Sequence) -> list[Sequence]:
        """Running ones of its tenant, of the lowest priorities and the youngest first, whose room would do; empty where
        even all of them would not.
        """
        if all(priority >= sequence.priority for priority in self._priorities):
            return []
        lower = [
            s
            for s in self.running
            if s.tenant == sequence.tenant and s.priority < sequence.priority and s.finish is None
        ]
        lower.sort(key=lambda s: (s.priority, -s.arrival))
        found: list[Sequence] = []
        for victim in lower:
            found.append(victim)
            if self._budget.would_fit(self._config.most_pages(sequence), [v.slot for v in found if v.slot is not None]):
                return found
        return []

    def _preempt(self, victim: Sequence) -> None:
        """Back into the queue, at its old place. It goes on later from its tokens, which are its whole state."""
        if victim.slot is not None:
            self._budget.free(victim.slot)
        self.leave(victim)
        self.waiting.add(victim, victim.arrival)


def _count_down(counts: Counter[Key], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
