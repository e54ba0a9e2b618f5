"""What attention over floats and over int8 share: memory, the softmax, the last scaling.

Work is done for HEADS query heads of one KV head at a time, as many as the registers hold (where fewer are left the
last one is repeated), and for the rows of one block: neighbouring positions of one sequence.  The scores of query head
r of row i:

    n = i * HEADS + r:      scores[n * stride + p]          p = position
"""

from typing import NamedTuple

import numpy as np

from trireme_kernels.arrays import F32, I8, I32, round_up
from trireme_kernels.exponential import exp_lanes
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inner
from trireme_kernels.kv_format import PAGE_TOKENS
from trireme_kernels.simd import (
    floats_at,
    int8s_at,
    int32s_at,
    largest_f32,
    load_f32,
    maximum,
    splat_f32,
    store_f32,
    store_first,
    tree_sum,
    zeros_f32,
)

HEADS = 4 if ISA.tokens > 2 else 1
"""Query heads whose sums fit the registers together."""
ROWS = 8
"""Most rows of a block: what is read of a page serves all of them."""
BLOCK = 64
"""Scores are kept in whole blocks of so many positions."""
_LOWEST = np.float32(-np.inf)


class Heads(NamedTuple):
    """Queries of one block and up to HEADS heads of one KV head, and where their results go."""

    x: F32
    at: int
    """Row i has its queries at x[at + i * step], one head after the other."""
    step: int
    scale: np.float32
    """1 / sqrt(head_dim)."""
    kv_head: int
    ids: I32
    """Page ids of the sequence."""
    position: int
    """Of row 0; row i is at position + i."""
    rows: int
    heads: int
    """How many, 1 .. HEADS."""
    out: F32
    to: int
    out_step: int


class Scratch(NamedTuple):
    """Memory of one thread; N = rows * HEADS queries, W elements of a head with padding."""

    scores: F32
    stride: int
    """Between rows of scores; a row has whole blocks of 64."""
    q: F32
    """N * W: queries, padded with zeros; as levels in the first quarter."""
    mixed: F32
    """N * W: sums of weighted values, as the kernels like them."""
    page: F32
    """16 * W: the keys or the values of a page, widened."""
    factors: F32
    """N + HEADS: of the queries' levels, 1 / the sum of the exponentials; of the weights of a block."""
    totals: I32
    """N: sums of the queries' levels."""
    sums: I32
    """64 * HEADS: integer sums on their way to floats."""
    q8: I8
    levels: I8
    """128 * HEADS and at least W: levels of the weights of a block; of a key or a value."""


def _stride(longest: int) -> int:
    return round_up(longest, BLOCK) + 16  # rows of a power of two would meet in the same lines of the cache


def attention_bytes(rows: int, longest: int, width: int) -> int:
    """Scratch memory of one thread for blocks of up to `rows` rows that see up to `longest` positions; whole lines."""
    queries = rows * HEADS
    words = queries * (_stride(longest) + 2 * width + 2) + PAGE_TOKENS * width + HEADS + 64 * HEADS
    return round_up(4 * words + max(2 * BLOCK * HEADS, width), 64)


@inner
def attention_scratch(at: int, rows: int, longest: int, width: int) -> Scratch:
    """The memory at an address, `attention_bytes` long."""
    queries, stride = rows * HEADS, (longest + BLOCK - 1) // BLOCK * BLOCK + 16
    q = at + 4 * queries * stride
    mixed = q + 4 * queries * width
    page = mixed + 4 * queries * width
    factors = page + 4 * PAGE_TOKENS * width
    totals = factors + 4 * (queries + HEADS)
    sums = totals + 4 * queries
    return Scratch(
        floats_at(at),
        stride,
        floats_at(q),
        floats_at(mixed),
        floats_at(page),
        floats_at(factors),
        int32s_at(totals),
        int32s_at(sums),
        int8s_at(q),
        int8s_at(sums + 4 * 64 * HEADS),
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
def finish(h: Heads, s: Scratch, dim: int, width: int) -> None:
    """Mixed sums times the factors, from [row][32 elements][head][2][16] into rows of `out`."""
    for i in range(h.rows):
        for r in range(h.heads):
            first, factor = i * HEADS * width + r * 32, splat_f32(s.factors[i * HEADS + r])
            place = h.to + i * h.out_step + r * dim
            for d in range(0, dim, 16):
                value = load_f32(s.mixed, first + d // 32 * HEADS * 32 + d % 32) * factor
                if d + 16 <= dim:
                    store_f32(h.out, place + d, value)
                else:
                    store_first(h.out, place + d, dim - d, value)
