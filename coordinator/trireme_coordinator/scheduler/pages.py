"""How many KV pages are taken, when slots share some: a page that several slots have counts once.

A slot holds pages of its own, the reserved ones included, and shared ones in front of them. A page counts as running
when a running slot has it; the others can be had back by giving up parked slots.

    slot 3, running, 5 pages:   [ A  B | .  .  . ]        used: A, B, C and 3 + 2 own = 8
    slot 5, parked,  5 pages:   [ A  B  C | .  . ]        running: A, B and 3 own = 5
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Shared:
    """A page that may have several slots."""

    slots: int
    running: int


@dataclass(slots=True)
class _Hold:
    pages: int
    running: bool
    shared: list[_Shared] = field(default_factory=list)

    @property
    def own(self) -> int:
        return self.pages - len(self.shared)


class Pages:
    """The count of pages that all slots hold together, `used`, and of those that running ones hold, `running`."""

    def __init__(self) -> None:
        self.used = self.running = 0
        self._holds: dict[int, _Hold] = {}

    def hold(self, slot: int, pages: int, *, running: bool) -> None:
        """A slot gets pages of its own; or holds another number of them, or begins or ends to run."""
        hold = self._holds.setdefault(slot, _Hold(0, running=False))
        self._stop_running(hold)
        self.used += pages - hold.pages
        hold.pages, hold.running = pages, running
        if running:
            self.running += hold.own + sum(self._run(page) for page in hold.shared)

    def share(self, slot: int, donor: int, pages: int) -> None:
        """The slot has the donor's first pages, instead of its own first ones."""
        hold, giver = self._holds[slot], self._holds[donor]
        while len(giver.shared) < pages:
            giver.shared.append(_Shared(1, int(giver.running)))
        gained, lost = giver.shared[:pages], hold.shared
        running = hold.running
        for page in gained:
            page.slots += 1
        self._stop_running(hold)
        self.used += len(lost) - pages - sum(self._lose(page) for page in lost)
        hold.shared = gained
        self.hold(slot, hold.pages, running=running)

    def release(self, slot: int) -> None:
        """A slot holds nothing any more."""
        hold = self._holds.pop(slot)
        self._stop_running(hold)
        self.used -= hold.own + sum(self._lose(page) for page in hold.shared)

    def needed(self, pages: int, donor: int | None, shared: int) -> int:
        """By how much `running` would rise with a slot of `pages` pages that shares the donor's first `shared`."""
        if donor is None:
            return pages
        giver = self._holds[donor]
        running = shared if giver.running else sum(1 for page in giver.shared[:shared] if page.running)
        return pages - running

    def freed(self, slots: Iterable[int]) -> int:
        """By how much `running` would fall if these running slots were released."""
        holds = [self._holds[slot] for slot in slots]
        losing = Counter(page for hold in holds for page in hold.shared)
        return sum(hold.own for hold in holds) + sum(1 for page, n in losing.items() if n == page.running)

    def check_integrity(self) -> str:
        """Empty where the counts are those of all the slots; else what does not add up."""
        holds = self._holds.values()
        slots = Counter(page for hold in holds for page in hold.shared)
        running = Counter(page for hold in holds for page in hold.shared if hold.running)
        if any((page.slots, page.running) != (n, running[page]) for page, n in slots.items()):
            return "a shared page has other slots than the books say"
        used = sum(hold.own for hold in holds) + len(slots)
        runs = sum(hold.own for hold in holds if hold.running) + len(running)
        if (used, runs) != (self.used, self.running) or any(hold.own < 0 for hold in holds):
            return f"{used} pages are held, {runs} of them running; the books say {self.used} and {self.running}"
        return ""

    def _run(self, page: _Shared) -> bool:
        """Whether it was not running before."""
        page.running += 1
        return page.running == 1

    def _lose(self, page: _Shared) -> bool:
        """Whether nobody has it any more."""
        page.slots -= 1
        return page.slots == 0

    def _stop_running(self, hold: _Hold) -> None:
        if hold.running:
            for page in hold.shared:
                page.running -= 1
            self.running -= hold.own + sum(1 for page in hold.shared if not page.running)
            hold.running = False
