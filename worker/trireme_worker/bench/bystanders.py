"""How much CPU other processes used meanwhile: figures of a busy machine must say that they are.

Linux counts the time of all CPUs in ticks of 10 ms; over a measurement of some seconds that is exact enough.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

BUSY = 0.1
"""CPUs in use by others from which on a result carries a warning."""


class Bystanders:
    """Counts from its creation on."""

    def __init__(
        self,
        all_busy: Callable[[], float] | None = None,
        own_busy: Callable[[], float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`all_busy` and `own_busy`: seconds of CPU that everybody, and this process with its children, used so far."""
        self._all, self._own = all_busy or _all_busy, own_busy or _own_busy
        self._now = now
        self._began, self._before = now(), self._others()

    def _others(self) -> float:
        return self._all() - self._own()

    def cpus(self) -> float:
        """CPUs that other processes kept busy on average."""
        elapsed = self._now() - self._began
        return max(0.0, self._others() - self._before) / elapsed if elapsed > 0 else 0.0


def _all_busy() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")))


def _own_busy() -> float:
    """CPU seconds of this process, its live children and those that ended."""
    ended = os.times()
    total = ended.user + ended.system + ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:  # it ended meanwhile: then `ended` has it the next time
            continue
        total += times.user + times.system
    return float(total)
