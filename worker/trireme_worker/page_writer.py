"""KV pages on their way out of a stage, beside the computation.

Owns the thread that writes, the pages that wait for it, and their bound. Whoever computes only hands pages over; what
goes wrong with the store is counted and never raised.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trireme_worker.heap import Heap
from trireme_worker.page_health import Counters, Patience
from trireme_worker.page_redis import StoreUnavailable
from trireme_worker.page_value import HEADER_BYTES, Bytes, PageIdentity, blank, seal

ROUND_TRIP_BYTES = 8 << 20
"""Of pages that are read or written at once."""


class WritablePages(Protocol):
    """Where values are kept. Every method may raise StoreUnavailable."""

    def present(self, names: Sequence[str]) -> list[bool]: ...
    def write(self, values: Sequence[tuple[str, int, memoryview]]) -> None: ...
    def touch(self, pages: Sequence[tuple[str, int]]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Task:
    """A page to write, or one that was used where there is no value."""

    name: str
    number: int
    value: Bytes | None


class PageWriter:
    """Writes pages of `page_bytes` each into `pages`. Any method may be called from any thread."""

    def __init__(
        self,
        pages: WritablePages,
        identity: PageIdentity,
        page_bytes: int,
        *,
        waiting_bytes: int,
        counters: Counters,
        patience: Patience,
        heap: Heap,
    ) -> None:
        """`waiting_bytes`: the most that may wait."""
        self._pages, self._identity, self._page_bytes = pages, identity, page_bytes
        self._most, self._counters, self._patience, self._heap = waiting_bytes, counters, patience, heap
        self._lock = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._waiting = 0  # bytes
        self._writing = self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="kv-pages-write", daemon=True)
        self._thread.start()

    def save(self, first_page: int, keys: Sequence[bytes], copy: Callable[[int, Bytes], None]) -> None:
        """Takes copies of pages, `copy(page, room)` each, to be written later; skips what there is no room for."""
        for number, key in enumerate(keys, first_page):
            if not self._reserve():
                self._counters.skipped += len(keys) - (number - first_page)  # later ones are of no use without it
                return
            value = blank(self._page_bytes)
            copy(number, value[HEADER_BYTES:])
            self._put([_Task(self._identity.name(key), number, value)])

    def used(self, first_page: int, names: Sequence[str]) -> None:
        """Pages that were read just now, by their names in the store."""
        self._put([_Task(name, first_page + n, None) for n, name in enumerate(names)])

    @property
    def waiting_bytes(self) -> int:
        """Of pages that are still to be written."""
        return self._waiting

    def flush(self, seconds: float) -> bool:
        """Waits until everything has been written or given up; False where the time is up before."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._tasks and not self._writing, seconds)

    def close(self) -> None:
        """Ends the thread; what has not been written is lost. Waits for a store that hangs only as long as one call
        may take.
        """
        with self._lock:
            self._closed = True
            self._tasks.clear()
            self._lock.notify_all()
        self._thread.join()

    def _reserve(self) -> bool:
        """Room for one page."""
        with self._lock:
            if self._closed or self._patience.over or self._waiting + self._page_bytes > self._most:
                return False
            self._waiting += self._page_bytes
        self._heap.grown(self._page_bytes)
        return True

    def _put(self, tasks: Sequence[_Task]) -> None:
        with self._lock:
            self._tasks.extend(tasks)
            self._lock.notify_all()

    # ---------------------------------------------------------------- the thread

    def _write_all(self) -> None:
        while (tasks := self._next()) is not None:
            size = self._page_bytes * sum(task.value is not None for task in tasks)
            try:
                self._write(tasks)
            except StoreUnavailable:
                self._patience.failed()
                self._counters.skipped += size // self._page_bytes
            tasks.clear()
            self._done(size)
            self._heap.give_back()

    def _next(self) -> list[_Task] | None:
        """Some tasks, or none after a while; None when the writer is closed."""
        most = max(1, ROUND_TRIP_BYTES // self._page_bytes)
        with self._lock:
            self._lock.wait_for(lambda: self._closed or self._tasks, self._heap.look_again)
            if self._closed:
                return None
            self._writing = True
            return [self._tasks.popleft() for _ in range(min(most, len(self._tasks)))]

    def _done(self, size: int) -> None:
        self._heap.grown(-size)
        with self._lock:
            self._waiting -= size
            self._writing = False
            self._lock.notify_all()

    def _write(self, tasks: Sequence[_Task]) -> None:
        if not tasks:
            return
        if self._patience.over:
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
        self._counters.written += len(values)
        self._counters.known += sum(there)
        self._patience.answered()
