"""KV pages on their way out of a stage and back in, beside the computation.

Owns the thread that writes, the threads that read, the pages that wait in between, and their bounds. Whoever computes
only hands pages over and takes fetched ones: nothing here makes it wait. A store that does not answer is left alone for
a while; what goes wrong with it is counted and never raised.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from trireme_proto.errors import FrameRefused
from trireme_proto.limits import LIMITS
from trireme_worker.page_redis import StoreUnavailable
from trireme_worker.page_value import HEADER_BYTES, Bytes, PageIdentity, blank, opened, seal

_READERS = 4
_ROUND_TRIP_BYTES = 8 << 20
"""Of pages that are read or written at once."""
_PAUSE_SECONDS = (1.0, 30.0)
"""How long a store that did not answer is left alone: at first, and at most."""
_STALE_SECONDS = 60.0
"""After which a measured speed is forgotten: it is measured again by whoever comes next."""
Clock = Callable[[], float]
"""Seconds, as time.monotonic."""


class Pages(Protocol):
    """Where values are kept. Every method may raise StoreUnavailable."""

    def present(self, names: Sequence[str]) -> list[bool]: ...
    def leading(self, names: Sequence[str]) -> int: ...
    def read(self, names: Sequence[str]) -> list[bytes]: ...
    def write(self, values: Sequence[tuple[str, int, memoryview]]) -> None: ...
    def touch(self, pages: Sequence[tuple[str, int]]) -> None: ...
    def close(self) -> None: ...


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


@dataclass(eq=False)
class _Fetch:
    pages: list[Bytes]
    reserved: int


@dataclass(frozen=True, slots=True)
class _Task:
    """A page to write, or one that was used where there is no value."""

    name: str
    number: int
    value: Bytes | None


class PageStore:
    """Pages of one stage, `page_bytes` each, in `pages`. Any method may be called from any thread."""

    def __init__(
        self,
        pages: Pages,
        identity: PageIdentity,
        page_bytes: int,
        *,
        waiting_bytes: int = LIMITS.waiting_page_bytes,
        fetched_bytes: int = LIMITS.fetched_page_bytes,
        clock: Clock = time.monotonic,
    ) -> None:
        self.page_bytes, self.counters = page_bytes, Counters()
        self.readers = ThreadPoolExecutor(_READERS, "kv-pages-read")
        """For `find` and `fetch`, which wait for the store."""
        self._pages, self._identity, self._clock = pages, identity, clock
        self._most_waiting, self._most_fetched = waiting_bytes, fetched_bytes
        self._lock = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._waiting = self._held = 0  # bytes
        self._writing = self._closed = False
        self._fetches: dict[int, _Fetch] = {}
        self._speed, self._measured = 0.0, 0.0
        self._pause, self._paused_until = 0.0, 0.0
        self._writer = threading.Thread(target=self._write_all, name="kv-pages-write", daemon=True)
        self._writer.start()

    # ---------------------------------------------------------------- called by whoever computes

    def save(self, first_page: int, keys: Sequence[bytes], copy: Callable[[int, Bytes], None]) -> None:
        """Takes copies of pages, `copy(page, room)` each, to be written later; skips what there is no room for."""
        for number, key in enumerate(keys, first_page):
            with self._lock:
                if self._closed or self._paused() or self._waiting + self.page_bytes > self._most_waiting:
                    self.counters.skipped += len(keys) - (number - first_page)  # later ones are of no use without it
                    return
                self._waiting += self.page_bytes
            value = blank(self.page_bytes)
            copy(number, value[HEADER_BYTES:])
            self._put(_Task(self._identity.name(key), number, value))

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

    # ---------------------------------------------------------------- called on `readers`

    def find(self, keys: Sequence[bytes]) -> int:
        """How many of the pages are in the store, from the first one on; 0 where it does not answer."""
        if self._paused():
            return 0
        try:
            found = self._pages.leading([self._identity.name(key) for key in keys])
        except StoreUnavailable:
            self._failed()
            return 0
        self._answered()
        return found

    def fetch(self, fetch: int, first_page: int, keys: Sequence[bytes], seconds: float) -> tuple[int, float]:
        """Reads pages, and holds them under a number of its own; returns how many, and the seconds that it took. Ends
        early when the time is up, the bound on memory is reached, a page is missing or damaged, or the store does not
        answer. FrameRefused where the number is in use.
        """
        started, reading = self._clock(), self._begin(fetch, len(keys))
        names = [self._identity.name(key) for key in keys[: reading.reserved // self.page_bytes]]
        if not self._paused():
            try:
                self._read(fetch, reading, names, started + seconds)
                self._answered()
            except StoreUnavailable:
                self._failed()
        took = max(self._clock() - started, 1e-9)
        self._finish(reading, took)
        with self._lock:
            self._tasks.extend(_Task(name, first_page + n, None) for n, name in enumerate(names[: len(reading.pages)]))
            self._lock.notify_all()
        return self.held(fetch), took

    def bytes_per_s(self) -> float:
        """How fast pages were read of late; 0 where that is not known."""
        with self._lock:
            return self._speed if self._clock() < self._measured + _STALE_SECONDS else 0.0

    # ---------------------------------------------------------------- called by anybody

    @property
    def waiting_bytes(self) -> int:
        """Of pages that are still to be written."""
        return self._waiting

    @property
    def fetched_bytes(self) -> int:
        """Of pages that are held, or being read."""
        return self._held

    def flush(self, seconds: float) -> bool:
        """Waits until everything has been written or given up; False where the time is up before."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._tasks and not self._writing, seconds)

    def close(self) -> None:
        """Ends the threads; what has not been written is lost. Waits for a store that hangs only as long as one call
        may take.
        """
        with self._lock:
            self._closed = True
            self._tasks.clear()
            self._lock.notify_all()
        self._writer.join()
        self.readers.shutdown()
        self._pages.close()

    # ---------------------------------------------------------------- reading

    def _begin(self, fetch: int, pages: int) -> _Fetch:
        with self._lock:
            if fetch in self._fetches:
                raise FrameRefused(f"fetch {fetch} has begun before")
            room = max(0, self._most_fetched - self._held) // self.page_bytes
            reading = self._fetches[fetch] = _Fetch([], min(pages, room) * self.page_bytes)
            self._held += reading.reserved
            return reading

    def _read(self, fetch: int, reading: _Fetch, names: Sequence[str], deadline: float) -> None:
        at_once = max(1, _ROUND_TRIP_BYTES // self.page_bytes)
        for at in range(0, len(names), at_once):
            if self._clock() >= deadline or self._fetches.get(fetch) is not reading:
                return
            some = names[at : at + at_once]
            for name, value in zip(some, self._pages.read(some), strict=True):
                page = opened(name, value, self.page_bytes)
                if page is None:
                    self.counters.damaged += bool(value)
                    return
                reading.pages.append(page)
                self.counters.fetched += 1

    def _finish(self, reading: _Fetch, seconds: float) -> None:
        """Gives back what was reserved and not used, and learns how fast it went."""
        size = len(reading.pages) * self.page_bytes
        with self._lock:
            if reading in self._fetches.values():
                self._held -= reading.reserved - size
                reading.reserved = size
            if size:
                known = self.bytes_per_s() or size / seconds
                self._speed, self._measured = (known + size / seconds) / 2, self._clock()

    def _drop(self, fetch: int) -> None:
        """With the lock held."""
        found = self._fetches.pop(fetch, None)
        if found is not None:
            self._held -= found.reserved

    # ---------------------------------------------------------------- writing

    def _put(self, task: _Task) -> None:
        with self._lock:
            self._tasks.append(task)
            self._lock.notify_all()

    def _write_all(self) -> None:
        """The writer thread."""
        while (tasks := self._next()) is not None:
            try:
                self._write(tasks)
                self._answered()
            except StoreUnavailable:
                self._failed()
                self.counters.skipped += sum(task.value is not None for task in tasks)
            with self._lock:
                self._waiting -= sum(self.page_bytes for task in tasks if task.value is not None)
                self._writing = False
                self._lock.notify_all()

    def _next(self) -> list[_Task] | None:
        """Some tasks; None when the store is closed."""
        most = max(1, _ROUND_TRIP_BYTES // self.page_bytes)
        with self._lock:
            self._lock.wait_for(lambda: self._closed or self._tasks)
            if self._closed:
                return None
            self._writing = True
            return [self._tasks.popleft() for _ in range(min(most, len(self._tasks)))]

    def _write(self, tasks: Sequence[_Task]) -> None:
        if self._paused():
            raise StoreUnavailable
        touched = [(task.name, task.number) for task in tasks if task.value is None]
        fresh = [task for task in tasks if task.value is not None]
        there = self._pages.present([task.name for task in fresh])
        values: list[tuple[str, int, memoryview]] = []
        for task, known in zip(fresh, there, strict=True):
            if task.value is not None and not known:
                seal(task.name, task.value)
                values.append((task.name, task.number, task.value.data))
        touched += [(task.name, task.number) for task, known in zip(fresh, there, strict=True) if known]
        if values:
            self._pages.write(values)
        if touched:
            self._pages.touch(touched)
        self.counters.written += len(values)
        self.counters.known += sum(there)

    # ---------------------------------------------------------------- a store that does not answer

    def _paused(self) -> bool:
        return self._clock() < self._paused_until

    def _failed(self) -> None:
        """Each failure doubles the pause; those that come while there is one count as the same."""
        with self._lock:
            if not self._paused():
                self.counters.failures += 1
                shortest, longest = _PAUSE_SECONDS
                self._pause = min(max(2 * self._pause, shortest), longest)
                self._paused_until = self._clock() + self._pause

    def _answered(self) -> None:
        self._pause = 0.0


def _count(fetch: _Fetch | None) -> int:
    return len(fetch.pages) if fetch else 0
