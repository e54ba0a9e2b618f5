"""The largest logits of an int8 head, found with a 4-bit first pass: half the bytes, and the same result.

    1  `first_pass`    sums over the 4-bit codes; for each tile of 32 rows the largest logit that one surely reaches
    2  `threshold`     what the `keep` largest logits surely reach
    3  `rescore`       the int8 logit of every row that may reach it; all other logits become LOWEST

A row's int8 sum lies within B = ceil(10 sqrt(24) |q|) of its 4-bit sum (`head_weights.py` says how surely), and
rounding keeps order, so fl(fl(sum +- B) * fl(scale[v] * scale[t])) bounds its logit.  Ties stay in.

This serves greedy choice (keep = 1) and top-k (keep = k): tokens beyond the k largest have no influence there.
Sampling without top-k needs every logit, because all masses are added up: use `int8_head_logits` for it.
"""

import math

import numpy as np

from trireme_kernels.arrays import F32, I8, I32, U8, frozen, require, require_array, require_output, work_range
from trireme_kernels.head_int8 import Activations, check_activations, logit, row_sum
from trireme_kernels.head_weights import CODE_STEP, HeadWeights
from trireme_kernels.jit import inner, kernel
from trireme_kernels.simd import load_u8, merge, outer, prefetch, store_tile, tile

LOWEST = np.float32(-3.4028235e38)
"""The logit of tokens that are not among those asked for: finite, with probability 0 beside any other."""
_T, _VARIANCE = 10.0, 24.0
_AHEAD = 8192


def first_pass(x: Activations, head: HeadWeights, sums: I32, tops: F32, begin: int = 0, end: int | None = None) -> None:
    """4-bit sums of all rows, and what each tile's largest logit surely reaches.

    sums: int32[T, tiles * 32], written, 0 in the padding.  tops: float32[T, tiles], written.
    head: of kind "int8+4bit".  begin, end: tiles of 32 rows, all by default.  Raises `KernelInputError`.
    """
    _check(x, head, sums, tops, written=True)
    begin, end = work_range(begin, end, head.tiles)
    if head.codes is None or head.dither is None:
        return
    _first_pass(
        frozen(x.q), frozen(x.scale), _offsets(x, head), _bounds(x), head.codes, head.scales, sums, tops, begin, end
    )


def threshold(tops: F32, keep: int) -> F32:
    """What the `keep` largest logits of each row surely reach, float32[T]; -infinity where nothing is sure."""
    require_array("tops", tops, np.float32, tops.shape if getattr(tops, "ndim", 0) == 2 else (1, 1))
    require("keep", keep > 0, "must be positive")
    tokens, tiles = tops.shape
    if keep > tiles:
        return np.full(tokens, -np.inf, np.float32)
    # `keep` tiles have a row each that reaches the smallest of their maxima
    return np.ascontiguousarray(np.partition(tops, tiles - keep, axis=1)[:, tiles - keep])


def rescore(
    x: Activations,
    head: HeadWeights,
    sums: I32,
    least: F32,
    out: F32,
    begin: int = 0,
    end: int | None = None,
) -> None:
    """Logits out float32[T, V] of the rows that may reach `least` float32[T], LOWEST for the others.

    A row of activations that was not finite gets NaN throughout.  begin, end as in `first_pass`.
    """
    _check(x, head, sums, None, written=False)
    require_array("least", least, np.float32, (len(x.scale),))
    require_output("out", out, np.float32, (len(x.scale), head.vocabulary))
    begin, end = work_range(begin, end, head.tiles)
    activations = (frozen(x.offset), frozen(x.scale), _bounds(x))
    weights = (head.levels, head.scales, head.totals)
    _rescore(*activations, frozen(sums), frozen(least), *weights, out, 32 * begin, min(32 * end, head.vocabulary))


def largest_logits(x: Activations, head: HeadWeights, keep: int, out: F32) -> None:
    """The int8 logits of at least the `keep` largest, with ties, LOWEST elsewhere: the three steps on one thread."""
    tokens = len(x.scale)
    sums, tops = np.empty((tokens, 32 * head.tiles), np.int32), np.empty((tokens, head.tiles), np.float32)
    first_pass(x, head, sums, tops)
    rescore(x, head, sums, threshold(tops, keep), out)


def _check(x: Activations, head: HeadWeights, sums: I32, tops: F32 | None, *, written: bool) -> None:
    check_activations(x, head)
    require("head", head.codes is not None, "must be of kind int8+4bit")
    tokens, check = len(x.scale), require_output if written else require_array
    check("sums", sums, np.int32, (tokens, 32 * head.tiles))
    if tops is not None:
        require_output("tops", tops, np.float32, (tokens, head.tiles))


def _offsets(x: Activations, head: HeadWeights) -> I32:
    """Sum over k of (8 - 127 - dither[k]) * q[t, k]: the same for all rows of the table."""
    dither = np.zeros(head.width) if head.dither is None else head.dither.astype(np.float64)
    return (x.q.astype(np.float64) @ (8.0 - 127.0 - dither)).astype(np.int32)


def _bounds(x: Activations) -> I32:
    squares = (x.q.astype(np.float64) ** 2).sum(axis=1)
    return np.array([math.ceil(_T * math.sqrt(_VARIANCE * s)) for s in squares], np.int32)


@kernel
def _first_pass(
    q: I8, scale: F32, offsets: I32, bounds: I32, codes: U8, scales: F32, sums: I32, tops: F32, begin: int, end: int
) -> None:
    width = q.shape[1]
    cells, activations, flat, row = codes.reshape(-1), q.reshape(-1), sums.reshape(-1), sums.shape[1]
    for n in range(begin, end):
        for t in range(scale.size):
            _tile_sums(cells, n * 16 * width, activations, t * width, width, flat, t * row + 32 * n)
            top = np.float32(-np.inf)
            for v in range(32 * n, min(32 * n + 32, scales.size)):
                total = CODE_STEP * sums[t, v] + offsets[t]
                sums[t, v] = total
                least = np.float32(np.int32(total - bounds[t])) * (scales[v] * scale[t])
                top = max(top, least)
            tops[t, n] = top
            for v in range(scales.size, 32 * n + 32):
                sums[t, v] = 0


@inner
def _tile_sums(codes: U8, at: int, q: I8, place: int, width: int, sums: I32, to: int) -> None:
    """Two vectors of 16 rows each, 8 columns a step."""
    low, high, second = tile(2), tile(2), at + 8 * width
    for k in range(0, width, 8):
        prefetch(codes, at + 8 * k + _AHEAD)
        prefetch(codes, second + 8 * k + _AHEAD)
        u, v = load_u8(codes, at + 8 * k), load_u8(codes, second + 8 * k)
        low = outer(low, (u & 15, v & 15), q, place + k)
        high = outer(high, (u >> 4, v >> 4), q, place + k + 4)
    store_tile(sums, to, merge(low, high, 0))


@kernel
def _rescore(
    q: U8,
    scale: F32,
    bounds: I32,
    sums: I32,
    least: F32,
    levels: I8,
    scales: F32,
    totals: I32,
    out: F32,
    begin: int,
    end: int,
) -> None:
    width = levels.shape[1]
    rows, activations = levels.reshape(-1), q.reshape(-1)
    for t in range(scale.size):
        for v in range(begin, end):
            factor = scales[v] * scale[t]
            if np.float32(np.int32(sums[t, v] + bounds[t])) * factor < least[t]:
                out[t, v] = LOWEST
            else:
                total = row_sum(rows, v * width, activations, t * width, width)
                out[t, v] = logit(total, totals[v], scales[v], scale[t])
