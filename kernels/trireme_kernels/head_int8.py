"""Logits from an int8 table: exact integer sums, one rescale.

    logit[t, v] = fl(float32(sum over k of level[v, k] * q[t, k]) * fl(scale[v] * scale[t]))

q are the activations as `quantise_rows` makes them.  They are stored as q + 127, the unsigned side of the dot product;
127 times the row's total is subtracted.
"""

from typing import NamedTuple

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, U8, frozen, require_array, require_output, work_range
from trireme_kernels.head_weights import HeadWeights
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inner, kernel
from trireme_kernels.quantise import quantise_rows
from trireme_kernels.simd import I32x16, dot, load_i8, load_u8, prefetch_l2, sum_lanes, zeros_i32

BOUND = 9.0
"""Errors of 4-bit sums are bounded by this many standard deviations (`head_weights.py`)."""
HEAD_ROWS = 32
"""Rows of the vocabulary in one work item."""
_ANY_BYTES = ISA.any_bytes
AHEAD = 8192
"""Bytes between a load and the prefetch beside it."""


class Activations(NamedTuple):
    """Quantised rows of one micro-batch."""

    q: I8
    """int8[T, W]."""
    offset: U8
    """uint8[T, W]: q + 127."""
    scale: F32
    total: I32
    constant: I32
    """int32[T]: what joins 17 times the sum of codes, the sum of (8 - 127 - dither[k]) * q over k; 0 without codes."""
    bound: I32
    """int32[T]: how far an int8 sum may be from its 4-bit sum."""


def quantise_for_head(x: F32, head: HeadWeights) -> Activations:
    """Quantise rows float32[T, hidden_size] for one head, once for all threads.  Raises `KernelInputError`."""
    require_array("x", x, np.float32, (ANY, head.hidden_size))
    tokens = len(x)
    q, scale, total = np.empty((tokens, head.width), np.int8), np.empty(tokens, np.float32), np.empty(tokens, np.int32)
    quantise_rows(x, q, scale, total)
    wide = q.astype(np.float64)
    dither = np.zeros(head.width) if head.dither is None else head.dither.astype(np.float64)
    constant = (wide @ (8.0 - 127.0 - dither)).astype(np.int32) * np.int32(head.dither is not None)
    bound = np.ceil(BOUND * np.sqrt(24.0 * (wide * wide).sum(axis=1))).astype(np.int32)
    return Activations(q, q.view(np.uint8) + np.uint8(127), scale, total, constant, bound)


def int8_head_logits(x: Activations, head: HeadWeights, out: F32, begin: int = 0, end: int | None = None) -> None:
    """Logits float32[T, V] of rows that `quantise_for_head` quantised for this head.

    begin, end: work items of 32 rows of the vocabulary (the last may be shorter), all by default; only their columns of
    `out` are written.  A row that was not finite gets NaN.  Raises `KernelInputError`.
    """
    check_activations(x, head)
    require_output("out", out, np.float32, (len(x.scale), head.vocabulary))
    begin, end = work_range(begin, end, head.tiles)
    stop = min(end * HEAD_ROWS, head.vocabulary)
    weights = (head.levels, head.scales, head.totals)
    _logits(frozen(x.offset), frozen(x.scale), *weights, out, begin * HEAD_ROWS, stop)


def check_activations(x: Activations, head: HeadWeights) -> None:
    """Check that rows fit a head."""
    require_array("x", x.q, np.int8, (ANY, head.width))
    require_array("x", x.offset, np.uint8, x.q.shape)
    require_array("x", x.scale, np.float32, (len(x.q),))
    for array in (x.total, x.constant, x.bound):
        require_array("x", array, np.int32, (len(x.q),))


@kernel
def _logits(q: U8, scale: F32, levels: I8, scales: F32, totals: I32, out: F32, begin: int, end: int) -> None:
    width = levels.shape[1]
    rows, activations = levels.reshape(-1), q.reshape(-1)
    fours = scale.size // 4 * 4
    for v in range(begin, end):
        for t in range(0, fours, 4):
            four = _four_sums(rows, v * width, activations, t * width, width)
            for i in range(4):
                out[t + i, v] = logit(four[i], totals[v], scales[v], scale[t + i])
        for t in range(fours, scale.size):
            total = row_sum(rows, v * width, activations, t * width, width, True)
            out[t, v] = logit(total, totals[v], scales[v], scale[t])


@inner
def logit(total: np.int32, row_total: np.int32, row_scale: np.float32, scale: np.float32) -> np.float32:
    """The logit of a sum over q + 127."""
    return np.float32(total - np.int32(127) * row_total) * (row_scale * scale)


@inner
def row_sum(rows: I8, at: int, q: U8, place: int, width: int, following: bool) -> np.int32:
    """Sum over k of rows[at + k] * q[place + k]; the two partial sums hide the latency of the dot product.

    following: the rows behind this one will be read next.
    """
    even, odd, ahead = zeros_i32(), zeros_i32(), rows.view(np.uint8)
    for k in range(0, width - 64, 128):
        if following:
            prefetch_l2(ahead, at + k + AHEAD)
            prefetch_l2(ahead, at + k + AHEAD + 64)
        even = _add(even, q, place + k, rows, at + k)
        odd = _add(odd, q, place + k + 64, rows, at + k + 64)
    if width % 128:
        even = _add(even, q, place + width - 64, rows, at + width - 64)
    return sum_lanes(even + odd)


@inner
def _four_sums(rows: I8, at: int, q: U8, place: int, width: int) -> tuple[np.int32, np.int32, np.int32, np.int32]:
    """`row_sum` of four tokens, which share what is read of the row."""
    a, b, c, d, ahead = zeros_i32(), zeros_i32(), zeros_i32(), zeros_i32(), rows.view(np.uint8)
    for k in range(0, width, 64):
        prefetch_l2(ahead, at + k + AHEAD)
        a = _add(a, q, place + k, rows, at + k)
        b = _add(b, q, place + width + k, rows, at + k)
        c = _add(c, q, place + 2 * width + k, rows, at + k)
        d = _add(d, q, place + 3 * width + k, rows, at + k)
    return sum_lanes(a), sum_lanes(b), sum_lanes(c), sum_lanes(d)


@inner
def _add(total: I32x16, q: U8, place: int, rows: I8, at: int) -> I32x16:
    x, w = load_u8(q, place), load_i8(rows, at)
    if _ANY_BYTES:
        return dot(total, x, w)
    half = x >> 1  # halves are at most 127
    return dot(dot(total, half, w), x - half, w)
