"""Memory that a backlog took, given back to the system once the backlog is gone.

glibc gives back by itself only large pieces and the top of its heap, and what counts as large grows with the largest
piece freed so far (mallopt(3), M_MMAP_THRESHOLD): after a page store was away, a stage would keep hundreds of megabytes
for good. `malloc_trim` returns free memory from anywhere in the heap, about 20 ms for 256 MB (malloc_trim(3)).
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

_WORTH_BYTES = 64 << 20
"""A backlog below this is left to the allocator."""
_CALM_SECONDS = 1.0
"""After a backlog has gone: what was handed on may still be in use."""
Clock = Callable[[], float]
"""Seconds, as time.monotonic."""


def trim() -> None:
    """Gives back what is free. Does nothing where the C library is not glibc."""
    if function := getattr(ctypes.CDLL(None), "malloc_trim", None):
        function(0)


class Heap:
    """The bytes of a backlog, and when to give back what it took. Any method may be called from any thread."""

    def __init__(self, *, clock: Clock = time.monotonic, trim: Callable[[], None] = trim) -> None:
        self._clock, self._trim = clock, trim
        self._lock = threading.Lock()
        self._held = self._most = 0
        self._low_at: float | None = None

    def grown(self, held: int) -> None:
        """The backlog has grown by so many bytes, or become smaller."""
        with self._lock:
            self._held += held
            self._most = max(self._most, self._held)
            if self._held > self._most // 4:
                self._low_at = None
            elif self._low_at is None:
                self._low_at = self._clock()

    @property
    def look_again(self) -> float | None:
        """Seconds after which to call `give_back`; None where there is nothing to give back."""
        return _CALM_SECONDS if self._most >= _WORTH_BYTES else None

    def give_back(self) -> None:
        """Does so where it is worth while and the backlog has been gone for a moment. May take some milliseconds."""
        with self._lock:
            calm = self._low_at is not None and self._clock() >= self._low_at + _CALM_SECONDS
            if self._most < _WORTH_BYTES or not calm:
                return
            self._most, self._low_at = self._held, None
        self._trim()
