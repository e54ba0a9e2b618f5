"""Whose turn it is: the tenant that has been served least; of its sequences the one with the highest priority, then the
oldest.

A counter of tokens for each tenant, as in "Fairness in Serving Large Language Models" (Sheng et al., 2024): whoever has
work takes turns by counter, and one that comes back after a pause starts where the others are, so that nobody can save
up turns. How many requests a tenant has waiting makes no difference.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator

from trireme_coordinator.scheduler.sequence import Sequence

_KEPT = 1024
"""Counters of tenants without work that may be kept; those that say nothing any more are forgotten beyond that."""


class Shares:
    """Tokens served to each tenant."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._now = 0  # the counter of whoever was chosen last: what everybody with work has been served, about

    def served(self, tenant: str) -> int:
        """Its counter; never goes back while the tenant has work."""
        return self._served.get(tenant, self._now)

    def enter(self, tenant: str) -> None:
        """A tenant without work has some again."""
        if len(self._served) > _KEPT:
            self._served = {t: n for t, n in self._served.items() if n > self._now}
        self._served[tenant] = max(self.served(tenant), self._now)

    def charge(self, tenant: str, tokens: int) -> None:
        """So many tokens were computed for it."""
        self._served[tenant] = self.served(tenant) + tokens

    def chosen(self, tenant: str) -> None:
        """It was served least of all that have work."""
        self._now = max(self._now, self.served(tenant))


class FairQueue:
    """Sequences that wait for the same thing. Adding, removing and choosing are quick however many there are."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._lines: dict[str, list[tuple[int, int, Sequence]]] = {}  # tenant -> (-priority, place, sequence), sorted
        self._places: dict[Sequence, int] = {}
        self._turns: list[tuple[int, str]] = []  # heap of (counter when last looked at, tenant)
        self._in_turns: set[str] = set()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._places

    def __iter__(self) -> Iterator[Sequence]:
        """Tenant by tenant, each one's in its order."""
        return (sequence for line in self._lines.values() for _, _, sequence in line)

    def count(self, tenant: str) -> int:
        """Sequences of a tenant."""
        return len(self._lines.get(tenant, ()))

    def add(self, sequence: Sequence, place: int) -> None:
        """Behind those of its tenant and priority whose place is lower. No two of a tenant have the same place."""
        line = self._lines.get(sequence.tenant)
        if line is None:
            line = self._lines[sequence.tenant] = []
            self._take_turns(sequence.tenant)
        insort(line, (-sequence.priority, place, sequence))
        self._places[sequence] = place

    def remove(self, sequence: Sequence) -> bool:
        """Whether it was here."""
        place = self._places.pop(sequence, None)
        if place is None:
            return False
        line = self._lines[sequence.tenant]
        del line[bisect_left(line, (-sequence.priority, place))]  # shorter, so just before it
        if not line:
            del self._lines[sequence.tenant]
        return True

    def first(self) -> Sequence | None:
        """Whose turn it is; None where nobody waits."""
        while self._turns:
            looked_at, tenant = self._turns[0]
            served = self._shares.served(tenant)
            if tenant not in self._lines:
                self._in_turns.discard(heapq.heappop(self._turns)[1])
            elif looked_at != served:  # counters only rise, so whoever is on top with a true one has the lowest
                heapq.heapreplace(self._turns, (served, tenant))
            else:
                return self._lines[tenant][0][2]
        return None

    def clear(self) -> None:
        """Nobody waits any more."""
        self._lines.clear()
        self._places.clear()

    def _take_turns(self, tenant: str) -> None:
        if tenant not in self._in_turns:
            self._in_turns.add(tenant)
            heapq.heappush(self._turns, (self._shares.served(tenant), tenant))
