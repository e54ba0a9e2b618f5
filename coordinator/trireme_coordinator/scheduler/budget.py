"""Slots and KV pages, counted as every stage counts them.

A running sequence reserves, when it is admitted, the pages of its longest possible length, so that it can never run
out. After a request of a session ends, its slot may be kept ("parked") with the keys and values in it, so that the
session's next request need not compute them again; parked slots are given up, least recently used first, when somebody
needs the room.

    slots:  free | running | parked          pages:  free | reserved by running | held by parked
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

PAGE_TOKENS = 16


def pages_for(tokens: int) -> int:
    """KV pages that hold so many tokens of one sequence."""
    return -(-tokens // PAGE_TOKENS)


@dataclass(frozen=True, slots=True)
class Parked:
    """A slot that holds the keys and values of `tokens`."""

    slot: int
    tokens: tuple[int, ...]

    @property
    def pages(self) -> int:
        return pages_for(len(self.tokens))


class Budget:
    """Books of `slots` slots and `pages` pages. `releases` collects the slots that the stages must be told to free."""

    def __init__(self, slots: int, pages: int) -> None:
        self.slots, self.pages = slots, pages
        self.freed = 0
        """Rises whenever there may be more room than before."""
        self.releases: list[int]
        self._free_slots: list[int]
        self._running: dict[int, int]  # slot -> pages
        self._parked: OrderedDict[str, Parked]  # session -> what is kept, the least recently used first
        self.reset()

    @property
    def pages_reserved(self) -> int:
        return self._running_pages + self._parked_pages

    @property
    def parked(self) -> int:
        """Sessions whose keys and values are kept."""
        return len(self._parked)

    @property
    def running_slots(self) -> list[int]:
        return list(self._running)

    def reserve(self, pages: int) -> int | None:
        """A free slot with `pages` pages reserved, parked ones given up as needed; None where running ones leave no
        room.
        """
        if len(self._running) == self.slots or self._running_pages + pages > self.pages:
            return None
        while not self._free_slots or self.pages_reserved + pages > self.pages:
            self.evict(next(iter(self._parked)))
        slot = self._free_slots.pop()
        self._run(slot, pages)
        return slot

    def would_fit(self, pages: int, without: list[int]) -> bool:
        """Whether `reserve(pages)` would find room if these running slots were free."""
        given_up = sum(self._running[slot] for slot in without)
        return len(self._running) - len(without) < self.slots and self._running_pages - given_up + pages <= self.pages

    def unpark(self, session_id: str, pages: int, tokens: list[int]) -> Parked | None:
        """Takes over the session's parked slot where it holds a proper prefix of `tokens` and `pages` fit; else
        None.
        """
        parked = self._parked.get(session_id)
        if parked is None:
            return None
        if self._running_pages + pages > self.pages:
            return None
        held = len(parked.tokens)
        if held >= len(tokens) or tuple(tokens[:held]) != parked.tokens:
            self.evict(session_id)
            return None
        self._unpark(session_id)
        self._run(parked.slot, pages)
        while self.pages_reserved > self.pages:
            self.evict(next(iter(self._parked)))
        return parked

    def park(self, slot: int, session_id: str, tokens: tuple[int, ...]) -> None:
        """Keeps a running sequence's slot for its session, in place of an older one."""
        self.evict(session_id)
        self._end(slot)
        self._parked[session_id] = parked = Parked(slot, tokens)
        self._parked_pages += parked.pages

    def free(self, slot: int) -> None:
        """Ends a running sequence's hold."""
        self._end(slot)
        self._give_back(slot)

    def evict(self, session_id: str) -> None:
        """Gives up what is parked for a session, if anything."""
        if session_id in self._parked:
            self._give_back(self._unpark(session_id).slot)

    def reset(self) -> None:
        """The stages have lost everything: all slots are free, nothing is to be released."""
        self.releases = []
        self._free_slots = list(range(self.slots - 1, -1, -1))
        self._running = {}
        self._parked = OrderedDict()
        self._running_pages = self._parked_pages = 0
        self.freed += 1

    def check_integrity(self) -> str:
        """Empty where each slot is in exactly one place and the pages fit; else what does not add up."""
        slots = [*self._free_slots, *self._running, *(p.slot for p in self._parked.values())]
        if sorted(slots) != list(range(self.slots)):
            return f"free + running + parked slots are {sorted(slots)}, not {self.slots} slots once each"
        running, parked = sum(self._running.values()), sum(p.pages for p in self._parked.values())
        if (running, parked) != (self._running_pages, self._parked_pages):
            return f"{running} + {parked} pages are held, the books say {self._running_pages} + {self._parked_pages}"
        if self.pages_reserved > self.pages:
            return f"{self.pages_reserved} pages are reserved, there are {self.pages}"
        return ""

    def _run(self, slot: int, pages: int) -> None:
        self._running[slot] = pages
        self._running_pages += pages

    def _end(self, slot: int) -> None:
        self._running_pages -= self._running.pop(slot)
        self.freed += 1

    def _unpark(self, session_id: str) -> Parked:
        parked = self._parked.pop(session_id)
        self._parked_pages -= parked.pages
        return parked

    def _give_back(self, slot: int) -> None:
        self._free_slots.append(slot)
        self.releases.append(slot)
