"""What this machine can do at best: read memory, and multiply bytes. Kernels are held against it, in the same run.

    plain read     every 64-byte line of a buffer far larger than the caches, XORed together: nothing can read faster
    dot product    the instruction that `trireme_kernels.isa` chose, on data of the first-level cache, with sums enough
                   to hide its latency: nothing can multiply faster

Both are kernels made of the same vectors as all others, so they use what the CPU has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from trireme_kernels.arrays import I8, I32, U8
from trireme_kernels.isa import ISA
from trireme_kernels.jit import kernel
from trireme_kernels.simd import LANES, VECTOR_BYTES, load_i32, load_u8, outer, store_i32, store_tile, tile, zeros_i32
from trireme_worker.bench.interleave import Timing, Trial
from trireme_worker.team import Team

READ_BYTES = 1 << 29
"""Far more than the last-level cache, and read in a few milliseconds."""
DOT_STEPS = 600_000
"""Some 20 ms."""
_STRIPE = 4 * LANES
"""Elements of four vectors, read together so that four sums hide each other's latency."""
_VECTORS = 16 if ISA.dot.endswith("512") else 4
"""Sums of the peak's register tile: half of the 32 registers of 512 bits or of the 16 of 256 bits."""
_CELLS = 16
"""Pairs of vectors that the peak cycles through, so that no product is the same twice in a row."""
MACS_PER_STEP = _VECTORS * VECTOR_BYTES


@kernel
def read_lines(data: I32, begin: int, end: int, out: I32) -> None:
    """out[:16] = XOR of all data[i : i + 16], i = begin, begin + 16, ..  `end - begin` is a multiple of 64."""
    a, b, c, d = zeros_i32(), zeros_i32(), zeros_i32(), zeros_i32()
    for i in range(begin, end, _STRIPE):
        a = a ^ load_i32(data, i)
        b = b ^ load_i32(data, i + LANES)
        c = c ^ load_i32(data, i + 2 * LANES)
        d = d ^ load_i32(data, i + 3 * LANES)
    store_i32(out, 0, a ^ b ^ c ^ d)


@kernel
def dot_products(w: U8, x: I8, steps: int, out: I32) -> None:
    """`steps` times a register tile of dot products.  w uint8[2048], x int8[1024], out int32[at least 256]."""
    total = tile(_VECTORS)
    for i in range(steps):
        cell = i & (_CELLS - 1)
        weights = load_u8(w, cell * 2 * VECTOR_BYTES), load_u8(w, cell * 2 * VECTOR_BYTES + VECTOR_BYTES)
        total = outer(total, weights, x, cell * VECTOR_BYTES)
    store_tile(out, 0, total)


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
        stripes = (read_bytes or READ_BYTES) // 4 // _STRIPE
        self._data = np.ones(stripes * _STRIPE, np.int32)  # written, so that there is memory behind it
        self._steps = dot_steps or DOT_STEPS
        self._weights = (np.arange(_CELLS * 2 * VECTOR_BYTES) % 3).astype(np.uint8)
        self._x = (np.arange(_CELLS * VECTOR_BYTES) % 255 - 127).astype(np.int8)
        self._out = np.zeros((max(self.threads), _VECTORS * LANES), np.int32)

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
        stripes = self._data.size // _STRIPE

        def share(begin: int, end: int) -> None:
            mine = self._out[begin * threads // stripes]
            read_lines(self._data, begin * _STRIPE, end * _STRIPE, mine)

        self._teams[threads].run(stripes, share)

    def _dot(self, threads: int) -> None:
        def share(begin: int, end: int) -> None:
            for i in range(begin, end):
                dot_products(self._weights, self._x, self._steps, self._out[i])

        self._teams[threads].run(threads, share)


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
