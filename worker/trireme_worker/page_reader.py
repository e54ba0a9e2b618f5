"""KV pages on their way back into a stage, ahead of the frame that restores them.

Owns the threads that read, the pages that were fetched and wait for their frame, their bound, and how fast reading is.
Whoever computes only takes what is there; a store that does not answer ends a fetch early and is never raised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from trireme_proto.errors import FrameRefused
from trireme_worker.heap import Heap
from trireme_worker.page_health import Clock, Counters, Patience
from trireme_worker.page_redis import StoreUnavailable
from trireme_worker.page_value import Bytes, PageIdentity, opened
from trireme_worker.page_writer import ROUND_TRIP_BYTES

_READERS = 4
_STALE_SECONDS = 60.0
"""After which a measured speed is forgotten: it is measured again by whoever comes next."""
Used = Callable[[int, Sequence[str]], None]
"""Is told of pages that were read: the number of the first, and names."""


class ReadablePages(Protocol):
    """Where values are kept. Every method may raise StoreUnavailable."""

    def leading(self, names: Sequence[str]) -> int: ...
    def read(self, names: Sequence[str]) -> list[bytes]: ...


@dataclass(eq=False)
class _Fetch:
    pages: list[Bytes]
    reserved: int


class PageReader:
    """Reads pages of `page_bytes` each from `pages`. Any method may be called from any thread."""

    def __init__(
        self,
        pages: ReadablePages,
        identity: PageIdentity,
        page_bytes: int,
        *,
        fetched_bytes: int,
        counters: Counters,
        patience: Patience,
        heap: Heap,
        used: Used,
        clock: Clock = time.monotonic,
    ) -> None:
        """`fetched_bytes`: the most that may be held."""
        self.threads = ThreadPoolExecutor(_READERS, "kv-pages-read")
        """For `find` and `fetch`, which wait for the store."""
        self._pages, self._identity, self._page_bytes = pages, identity, page_bytes
        self._most, self._counters, self._patience, self._heap = fetched_bytes, counters, patience, heap
        self._used, self._clock = used, clock
        self._lock = threading.Lock()
        self._held = 0  # bytes
        self._fetches: dict[int, _Fetch] = {}
        self._speed, self._measured = 0.0, 0.0

    # ---------------------------------------------------------------- called on `threads`

    def find(self, keys: Sequence[bytes]) -> int:
        """How many of the pages are in the store, from the first one on; 0 where it does not answer."""
        if self._patience.over:
            return 0
        try:
            found = self._pages.leading([self._identity.name(key) for key in keys])
        except StoreUnavailable:
            self._patience.failed()
            return 0
        self._patience.answered()
        return found

    def fetch(self, fetch: int, first_page: int, keys: Sequence[bytes], seconds: float) -> tuple[int, float]:
        """Reads pages, and holds them under a number of its own; returns how many, and the seconds that it took. Ends
        early when the time is up, the bound on memory is reached, a page is missing or damaged, or the store does not
        answer. FrameRefused where the number is in use.
        """
        started, reading = self._clock(), self._begin(fetch, len(keys))
        names = [self._identity.name(key) for key in keys[: reading.reserved // self._page_bytes]]
        if not self._patience.over:
            try:
                self._read(fetch, reading, names, started + seconds)
                self._patience.answered()
            except StoreUnavailable:
                self._patience.failed()
        took = max(self._clock() - started, 1e-9)
        self._finish(reading, took)
        self._used(first_page, names[: len(reading.pages)])
        return self.held(fetch), took

    # ---------------------------------------------------------------- called by whoever computes

    def held(self, fetch: int) -> int:
        """Pages of a fetch that are there."""
        with self._lock:
            return _count(self._fetches.get(fetch))

    def take(self, fetch: int, pages: int) -> list[Bytes]:
        """The first pages of a fetch, which is forgotten. FrameRefused where it does not have so many."""
        with self._lock:
            found = self._fetches.get(fetch)
            if found is None or len(found.pages) < pages:
                raise FrameRefused(f"{pages} pages of a fetch are to be restored, {_count(found)} are there")
            self._drop(fetch)
            return found.pages[:pages]

    def forget(self, fetch: int) -> None:
        """Frees the pages of a fetch, also of one that is still being read."""
        with self._lock:
            self._drop(fetch)

    def forget_all(self) -> None:
        """Frees the pages of all fetches."""
        with self._lock:
            for fetch in list(self._fetches):
                self._drop(fetch)

    # ---------------------------------------------------------------- called by anybody

    def bytes_per_s(self) -> float:
        """How fast pages were read of late; 0 where that is not known."""
        with self._lock:
            return self._recent_speed()

    @property
    def fetched_bytes(self) -> int:
        """Of pages that are held, or being read."""
        return self._held

    def close(self) -> None:
        """Ends the threads."""
        self.threads.shutdown()

    # ---------------------------------------------------------------- reading

    def _begin(self, fetch: int, pages: int) -> _Fetch:
        with self._lock:
            if fetch in self._fetches:
                raise FrameRefused(f"fetch {fetch} has begun before")
            room = max(0, self._most - self._held) // self._page_bytes
            reading = self._fetches[fetch] = _Fetch([], min(pages, room) * self._page_bytes)
            self._hold(reading.reserved)
            return reading

    def _read(self, fetch: int, reading: _Fetch, names: Sequence[str], deadline: float) -> None:
        at_once = max(1, ROUND_TRIP_BYTES // self._page_bytes)
        for at in range(0, len(names), at_once):
            if self._clock() >= deadline or self._fetches.get(fetch) is not reading:
                return
            some = names[at : at + at_once]
            for name, value in zip(some, self._pages.read(some), strict=True):
                page = opened(name, value, self._page_bytes)
                if page is None:
                    self._counters.damaged += bool(value)
                    return
                reading.pages.append(page)
                self._counters.fetched += 1

    def _finish(self, reading: _Fetch, seconds: float) -> None:
        """Gives back what was reserved and not used, and learns how fast it went."""
        size = len(reading.pages) * self._page_bytes
        with self._lock:
            if reading in self._fetches.values():
                self._hold(size - reading.reserved)
                reading.reserved = size
            if size:
                known = self._recent_speed() or size / seconds
                self._speed, self._measured = (known + size / seconds) / 2, self._clock()

    # ---------------------------------------------------------------- with the lock held

    def _recent_speed(self) -> float:
        return self._speed if self._clock() < self._measured + _STALE_SECONDS else 0.0

    def _drop(self, fetch: int) -> None:
        found = self._fetches.pop(fetch, None)
        if found is not None:
            self._hold(-found.reserved)

    def _hold(self, size: int) -> None:
        self._held += size
        self._heap.grown(size)


def _count(fetch: _Fetch | None) -> int:
    return len(fetch.pages) if fetch else 0
