"""What this machine can do at best: read memory, and multiply bytes. Kernels are held against it, in the same run.

    plain read     every 64-byte line of a buffer far larger than the caches, XORed together: nothing can read faster
    dot product    the instruction that `trireme_kernels.isa` chose, on data of the first-level cache, with sums enough
                   to hide its latency: nothing can multiply faster

The kernels are those of `trireme_worker.peaks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from trireme_worker.bench.interleave import Timing, Trial
from trireme_worker.peaks import MACS_PER_STEP, OUT, STRIPE, dot_inputs, dot_products, read_lines
from trireme_worker.team import Team

READ_BYTES = 1 << 29
"""Far more than the last-level cache, and read in a few milliseconds."""
DOT_STEPS = 600_000
"""Some 20 ms."""


@dataclass(frozen=True)
class Peaks:
    """The limits by number of threads."""

    read_gb_s: Mapping[int, float]
    dot_gmac_s: Mapping[int, float]


class Limits:
    """Both limits on each of some numbers of threads, as trials to be interleaved with others.

    read_bytes, dot_steps  other amounts of work than `READ_BYTES` and `DOT_STEPS`
    """

    def __init__(self, threads: Sequence[int], *, read_bytes: int = 0, dot_steps: int = 0) -> None:
        self.threads = tuple(sorted(set(threads)))
        self._teams = {n: Team(n) for n in self.threads}
        stripes = (read_bytes or READ_BYTES) // 4 // STRIPE
        self._data = np.ones(stripes * STRIPE, np.int32)  # written, so that there is memory behind it
        self._steps = dot_steps or DOT_STEPS
        self._weights, self._x = dot_inputs()
        self._out = np.zeros((max(self.threads), OUT), np.int32)

    def trials(self) -> dict[str, Trial]:
        """A `read` and a `dot` for each number of threads."""
        found = {}
        for n in self.threads:
            found[f"plain read, {_count(n)}"] = Trial(partial(self._read, n), self._data.nbytes)
            macs = n * self._steps * MACS_PER_STEP
            found[f"dot products, {_count(n)}"] = Trial(partial(self._dot, n), macs)
        return found

    def peaks(self, timings: Mapping[str, Timing]) -> Peaks:
        """The limits out of the timings of `trials`."""
        return Peaks(
            {n: timings[f"plain read, {_count(n)}"].rate / 1e9 for n in self.threads},
            {n: timings[f"dot products, {_count(n)}"].rate / 1e9 for n in self.threads},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_fault: object) -> None:
        """Ends the threads."""
        for team in self._teams.values():
            team.close()

    def _read(self, threads: int) -> None:
        stripes = self._data.size // STRIPE

        def share(begin: int, end: int) -> None:
            mine = self._out[begin * threads // stripes]
            read_lines(self._data, begin * STRIPE, end * STRIPE, mine)

        self._teams[threads].run(stripes, share)

    def _dot(self, threads: int) -> None:
        def share(begin: int, end: int) -> None:
            for i in range(begin, end):
                dot_products(self._weights, self._x, self._steps, self._out[i])

        self._teams[threads].run(threads, share)


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
