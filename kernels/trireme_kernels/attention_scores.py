"""What attention over floats and over int8 share: queries in memory, the softmax, the last scaling.

Work is done for R query heads of one KV head at a time (`HEADS`, as many as the registers hold, or 1), and for the rows
of one block: neighbouring positions of one sequence.  Their scores lie one row after the other:

    scores[(row * R + r) * stride + p]          p = position, stride a multiple of 64 beyond the longest row
"""

from typing import NamedTuple

import numpy as np

from trireme_kernels.arrays import F32, I8, I32
from trireme_kernels.exponential import exp_lanes
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inner
from trireme_kernels.kv_format import PAGE_TOKENS
from trireme_kernels.simd import largest_f32, load_f32, maximum, splat_f32, store_f32, store_first, tree_sum, zeros_f32

HEADS = 4 if ISA.tokens == 8 else 1
"""Query heads whose sums fit the registers together."""
ROWS = 8
"""Rows of a block: what is read of a page serves all of them."""
BLOCK = 64
"""Scores are kept in whole blocks of so many positions."""
_LOWEST = np.float32(-np.inf)


class Scratch(NamedTuple):
    """Memory of one thread; R heads at a time, N = ROWS * HEADS queries, W elements of a head with padding."""

    q: F32
    """N * W: queries, padded with zeros."""
    page: F32
    """16 * W: the keys or the values of a page, widened."""
    scores: F32
    stride: int
    """Between rows of scores, a multiple of 64."""
    mixed: F32
    """N * W: sums of weighted values, as the kernels like them."""
    factors: F32
    """2 * N: of the queries' levels; 1 / the sum of the exponentials."""
    q8: I8
    """N * W: levels of the queries."""
    totals: I32
    """N: sums of the queries' levels."""
    levels: I8
    """128 * HEADS and at least W: levels of the weights of a block; of a key or a value."""
    sums: I32
    """64 * HEADS: integer sums on their way to floats."""


@inner
def scratch(rows: int, longest: int, width: int) -> Scratch:
    """For blocks of up to `rows` rows (at most ROWS) that see up to `longest` positions."""
    queries, stride = rows * HEADS, (longest + BLOCK - 1) // BLOCK * BLOCK
    return Scratch(
        np.empty(queries * width, np.float32),
        np.empty(PAGE_TOKENS * width, np.float32),
        np.empty(queries * stride, np.float32),
        stride,
        np.empty(queries * width, np.float32),
        np.empty(2 * queries, np.float32),
        np.empty(queries * width, np.int8),
        np.empty(queries, np.int32),
        np.empty(max(2 * BLOCK * HEADS, width), np.int8),
        np.empty(BLOCK * HEADS, np.int32),
    )


@inner
def exponentials(scores: F32, at: int, count: int) -> np.float32:
    """Replace scores[at : at + count] by exp(score - largest); their sum in the order of `summation.py`.

    What is left of the last block becomes 0.
    """
    end = at + (count + BLOCK - 1) // BLOCK * BLOCK
    for p in range(at + count, end):
        scores[p] = _LOWEST
    lanes = splat_f32(_LOWEST)
    for p in range(at, end, 16):
        lanes = maximum(load_f32(scores, p), lanes)
    top = splat_f32(largest_f32(lanes))
    total = zeros_f32()
    for p in range(at, end, 16):
        e = exp_lanes(load_f32(scores, p) - top)
        store_f32(scores, p, e)
        total = total + e
    return tree_sum(total)


@inner
def finish(s: Scratch, rows: int, heads: int, dim: int, width: int, out: F32, to: int, step: int) -> None:
    """Mixed sums times the factors, from [32 elements][head][2][16] into rows of `out`."""
    for q in range(rows * heads):
        first = q // heads * heads * width + q % heads * 32
        place = to + q // heads * step + q % heads * dim
        factor = s.factors[q]
        for d in range(0, dim, 16):
            value = load_f32(s.mixed, first + d // 32 * heads * 32 + d % 32) * splat_f32(factor)
            if d + 16 <= dim:
                store_f32(out, place + d, value)
            else:
                store_first(out, place + d, dim - d, value)
