"""The one thread that computes: what it is handed is done in the order in which it came.

Knows nothing of frames, calls or layers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ComputeThread:
    """Work for it comes from the event loop."""

    def __init__(self) -> None:
        self._taken = self.done = 0  # pieces of work, written by the thread alone
        self._thread = ThreadPoolExecutor(1, "stage")

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return self._taken > self.done

    def in_order(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        """Runs it after everything that was handed over before. Cancelled before it has begun, it never runs."""
        return asyncio.get_running_loop().run_in_executor(
            self._thread, partial(self._counted, partial(work, *args, **kwargs))
        )

    def close(self) -> None:
        """Waits until everything is done, and ends the thread."""
        self._thread.shutdown()

    def _counted(self, work: Callable[[], R]) -> R:
        self._taken += 1
        try:
            return work()
        finally:
            self.done += 1
