"""A fixed team of threads that share one kernel's work items.

Owns threads and nothing else. Kernels release the GIL, so plain threads run them side by side. The split is static and
contiguous: which thread computes an item never changes its value, because an item's sum is never cut.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Work = Callable[[int, int], None]
"""Computes the items [begin, end)."""


class Team:
    """`threads` threads, the calling one included."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"a team has at least one thread, not {threads}")
        self.threads = threads
        self._helpers = ThreadPoolExecutor(threads - 1, "kernel") if threads > 1 else None

    def run(self, items: int, work: Work) -> None:
        """Calls `work` on shares that cover [0, items); returns when all are done. The first error of a share is
        raised.
        """
        shares = split(items, self.threads)
        if self._helpers is None or len(shares) < 2:
            work(0, items)
            return
        others = [self._helpers.submit(work, *share) for share in shares[1:]]
        try:
            work(*shares[0])
        finally:
            for other in others:  # never leave while a thread still writes to the caller's arrays
                other.exception()
        for other in others:
            other.result()

    def close(self) -> None:
        """Ends the threads."""
        if self._helpers is not None:
            self._helpers.shutdown()


def split(items: int, parts: int) -> list[tuple[int, int]]:
    """Contiguous shares of [0, items), sizes differing by one at most; fewer than `parts` where there are fewer
    items.
    """
    parts = max(1, min(items, parts))
    return [(items * i // parts, items * (i + 1) // parts) for i in range(parts)]
