"""Slots and KV pages, counted as every stage counts them.

A running sequence reserves, when it is admitted, the pages of its longest possible length, so that it can never run
out; those that it shares with another slot count once. After a request of a session ends, its slot may be kept
("parked") with the keys and values in it, so that the session's next request need not compute them again; parked slots
are given up, least recently used first, when somebody needs the room.

    slots:  free | running | parked          pages:  free | reserved by running | held by parked

What the stages must be told is collected in `shares` and `releases`; a frame carries it, the shares first. That order
does for any order in which it came about: whoever shares pages has them before they are given up, and a slot that is
given away again by sharing is not released any more, because sharing frees it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from trireme_coordinator.scheduler.pages import Pages
from trireme_coordinator.scheduler.prefix import PAGE_TOKENS, PrefixTree

__all__ = ["PAGE_TOKENS", "Budget", "Parked", "Share", "pages_for"]


def pages_for(tokens: int) -> int:
    """KV pages that hold so many tokens of one sequence."""
    return -(-tokens // PAGE_TOKENS)


@dataclass(frozen=True, slots=True)
class Parked:
    """A slot that holds the keys and values of `tokens`, in pages for `held` tokens."""

    slot: int
    tokens: tuple[int, ...]
    held: int


@dataclass(frozen=True, slots=True)
class Share:
    """`slot` gives up what it holds and gets the first `pages` pages of `from_slot`."""

    slot: int
    from_slot: int
    pages: int


class Budget:
    """Books of `slots` slots and `pages` pages. `sharing`: slots of a tenant that begin alike share pages."""

    def __init__(self, slots: int, pages: int, *, sharing: bool = True) -> None:
        self.slots, self.pages = slots, pages
        self.freed = 0
        """Rises whenever there may be more room than before."""
        self._sharing = sharing
        self.shares: list[Share]
        self.releases: list[int]
        self._free_slots: list[int]
        self._running: set[int]
        self._parked: OrderedDict[str, Parked]  # session -> what is kept, the least recently used first
        self.reset()

    @property
    def pages_reserved(self) -> int:
        return self._pages.used

    @property
    def parked(self) -> int:
        """Sessions whose keys and values are kept."""
        return len(self._parked)

    @property
    def running_slots(self) -> list[int]:
        return list(self._running)

    def reserve(self, pages: int, tenant: str = "", tokens: Sequence[int] = ()) -> tuple[int, int] | None:
        """(a free slot with `pages` pages reserved, how many of them are shared and hold the first of `tokens`), parked
        ones given up as needed; None where running ones leave no room.
        """
        if len(self._running) == self.slots:
            return None
        donor, shared = self._match(None, tenant, tokens) or (None, 0)
        if self._pages.running + self._pages.needed(pages, donor, shared) > self.pages:
            return None
        if not self._free_slots:
            self._evict_oldest(besides=donor)
            if self._free_slots[-1] == donor:  # nobody else could be given up
                return self.reserve(pages, tenant, tokens)
        slot = self._free_slots.pop()
        self._running.add(slot)
        self._pages.hold(slot, pages, running=True)
        if donor is not None:
            self._share(slot, donor, shared, tenant, tokens)
        self._evict_until_it_fits()
        return slot, shared

    def share_more(self, slot: int, tenant: str, tokens: Sequence[int]) -> int:
        """Pages of `tokens` that a running slot holds after getting those of another running slot that holds more of
        them; 0 where none does.
        """
        donor, shared = self._match(slot, tenant, tokens) or (None, 0)
        if donor is None or donor not in self._running:
            return 0
        self._share(slot, donor, shared, tenant, tokens)
        return shared

    def filled(self, slot: int, tenant: str, tokens: Sequence[int], certain: int) -> None:
        """From the next frame on, a slot's first `certain` tokens are there to be shared."""
        if self._sharing and certain // PAGE_TOKENS > self._tree.pages(slot):
            self._tree.add(slot, tenant, tokens, certain // PAGE_TOKENS)

    def would_fit(self, pages: int, without: list[int]) -> bool:
        """Whether `reserve` would find room for `pages` pages if these running slots were free."""
        slots = len(self._running) - len(without)
        return slots < self.slots and self._pages.running - self._pages.freed(without) + pages <= self.pages

    def unpark(self, session_id: str, pages: int, tokens: Sequence[int]) -> Parked | None:
        """Takes over the session's parked slot where it holds a proper prefix of `tokens` and `pages` fit; else
        None.
        """
        parked = self._parked.get(session_id)
        if parked is None:
            return None
        pages = max(pages, pages_for(parked.held))  # which the stages hold until its next row
        if self._pages.running + self._pages.needed(pages, parked.slot, pages) > self.pages:
            return None
        held = len(parked.tokens)
        if held >= len(tokens) or tuple(tokens[:held]) != parked.tokens:
            return None
        del self._parked[session_id]
        self._running.add(parked.slot)
        self._pages.hold(parked.slot, pages, running=True)
        self._evict_until_it_fits()
        return parked

    def park(self, slot: int, session_id: str, tokens: tuple[int, ...], held: int = 0) -> None:
        """Keeps a running sequence's slot for its session, in place of an older one. `held`: the stages' pages are
        those of so many tokens, where that is more.
        """
        self.evict(session_id)
        self._running.remove(slot)
        self._parked[session_id] = parked = Parked(slot, tokens, max(held, len(tokens)))
        self._pages.hold(slot, pages_for(parked.held), running=False)
        self.freed += 1

    def free(self, slot: int) -> None:
        """Ends a running sequence's hold."""
        self._running.remove(slot)
        self._give_back(slot)

    def evict(self, session_id: str) -> None:
        """Gives up what is parked for a session, if anything."""
        if (parked := self._parked.pop(session_id, None)) is not None:
            self._give_back(parked.slot)

    def reset(self) -> None:
        """The stages have lost everything: all slots are free, nothing is to be released."""
        self.shares, self.releases = [], []
        self._free_slots = list(range(self.slots - 1, -1, -1))
        self._running = set()
        self._parked = OrderedDict()
        self._pages, self._tree = Pages(), PrefixTree()
        self.freed += 1

    def check_integrity(self) -> str:
        """Empty where each slot is in exactly one place and the pages fit; else what does not add up."""
        slots = [*self._free_slots, *self._running, *(p.slot for p in self._parked.values())]
        if sorted(slots) != list(range(self.slots)):
            return f"free + running + parked slots are {sorted(slots)}, not {self.slots} slots once each"
        if self.pages_reserved > self.pages:
            return f"{self.pages_reserved} pages are reserved, there are {self.pages}"
        return self._pages.check_integrity()

    def _match(self, slot: int | None, tenant: str, tokens: Sequence[int]) -> tuple[int, int] | None:
        """Another slot and how many pages of it could be shared; the last token is left, to sample from."""
        return self._tree.longest(slot, tenant, tokens, (len(tokens) - 1) // PAGE_TOKENS) if self._sharing else None

    def _share(self, slot: int, donor: int, pages: int, tenant: str, tokens: Sequence[int]) -> None:
        self._pages.share(slot, donor, pages)
        self._tree.add(slot, tenant, tokens, pages)
        self.shares.append(Share(slot, donor, pages))
        if slot in self.releases:
            self.releases.remove(slot)

    def _evict_oldest(self, besides: int | None = None) -> None:
        sessions = (session for session, parked in self._parked.items() if parked.slot != besides)
        self.evict(next(sessions, next(iter(self._parked))))

    def _evict_until_it_fits(self) -> None:
        while self._pages.used > self.pages:
            self._evict_oldest()

    def _give_back(self, slot: int) -> None:
        self._pages.release(slot)
        self._tree.remove(slot)
        self._free_slots.append(slot)
        self.releases.append(slot)
        self.freed += 1
