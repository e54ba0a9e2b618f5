"""The largest logits of an int8 head, found with a 4-bit first pass: half the bytes, and the same result.

    1  `first_pass`    sums over the 4-bit codes; for each tile of 32 rows the largest logit that one surely reaches
    2  `threshold`     what the `keep` largest logits surely reach
    3  `rescore`       the int8 logit of every row that may reach it; all other logits become LOWEST

A row's int8 sum lies within B = ceil(9 sqrt(24) |q|) (`Activations.bound`) of its 4-bit sum; `head_weights.py` says
how surely.  Rounding keeps order, so fl(fl(sum +- B) * fl(scale[v] * scale[t])) bounds its logit.  Ties stay in.

This serves greedy choice (keep = 1) and top-k (keep = k): tokens beyond the k largest have no influence there.
Sampling without top-k needs every logit, because all masses are added up: use `int8_head_logits` for it.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, U8, frozen, require, require_array, require_output, work_range
from trireme_kernels.head_int8 import AHEAD, Activations, check_activations, logit, row_sum
from trireme_kernels.head_weights import CODE_STEP, HeadWeights
from trireme_kernels.jit import inner, kernel
from trireme_kernels.simd import (
    F32x16,
    Tile,
    largest_f32,
    load_f32,
    load_first,
    load_i32,
    load_u8,
    maximum,
    merge,
    outer_rows,
    prefetch,
    prefetch_l2,
    splat_f32,
    store_first,
    store_i32,
    store_tile,
    tile,
    to_f32,
)

LOWEST = np.float32(-3.4028235e38)
"""The logit of tokens that are not among those asked for: finite, with probability 0 beside any other."""
SOON = 3
"""Rows to be rescored that are asked for ahead."""


def first_pass(x: Activations, head: HeadWeights, sums: I32, tops: F32, begin: int = 0, end: int | None = None) -> None:
    """Sums over 4-bit codes int32[T, tiles * 32] (0 in the padding) and the tiles' assured maxima float32[T, tiles].

    head: of kind "int8+4bit".  begin, end: tiles of 32 rows, all by default.  Raises `KernelInputError`.
    """
    _check(x, head, sums, tops, written=True)
    begin, end = work_range(begin, end, head.tiles)
    if head.codes is None or head.dither is None:
        return
    _first_pass(
        frozen(x.q),
        frozen(x.scale),
        frozen(x.constant),
        frozen(x.bound),
        head.codes,
        head.scales,
        sums,
        tops,
        begin,
        end,
    )


def threshold(tops: F32, keep: int) -> F32:
    """What the `keep` largest logits of each row surely reach, float32[T]; -infinity where nothing is sure."""
    require_array("tops", tops, np.float32, (ANY, ANY))
    require("keep", isinstance(keep, int | np.integer) and keep > 0, "must be a positive int")
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
    activations = (frozen(x.offset), frozen(x.scale), frozen(x.bound))
    weights = (head.levels, head.scales, head.totals)
    _rescore(*activations, frozen(sums), frozen(least), *weights, out, 32 * begin, min(32 * end, head.vocabulary))


def largest_logits(x: Activations, head: HeadWeights, keep: int, out: F32) -> None:
    """Logits of at least the `keep` largest, ties included, LOWEST elsewhere: the three steps on one thread."""
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


@kernel
def _first_pass(
    q: I8, scale: F32, offsets: I32, bounds: I32, codes: U8, scales: F32, sums: I32, tops: F32, begin: int, end: int
) -> None:
    width = q.shape[1]
    cells, activations, flat, row = codes.reshape(-1), q.reshape(-1), sums.reshape(-1), sums.shape[1]
    fours, found = scale.size // 4 * 4, np.empty(4 * 32, np.int32)
    for n in range(begin, end):
        left = scales.size - 32 * n
        for t in range(scale.size):
            if t < fours and t % 4 == 0:
                _tile_sums(tile(8), cells, n * 16 * width, activations, t * width, width, found)
            elif t >= fours:
                _tile_sums(tile(2), cells, n * 16 * width, activations, t * width, width, found)
            at, place = 32 * (t % 4) if t < fours else 0, t * row + 32 * n
            low = _finish(found, at, flat, place, offsets[t], bounds[t], scales, 32 * n, scale[t], left)
            high = _finish(
                found, at + 16, flat, place + 16, offsets[t], bounds[t], scales, 32 * n + 16, scale[t], left - 16
            )
            tops[t, n] = largest_f32(maximum(low, high))


@inner
def _finish(
    found: I32,
    place: int,
    sums: I32,
    at: int,
    offset: int,
    bound: int,
    scales: F32,
    v: int,
    scale: np.float32,
    left: int,
) -> F32x16:
    """Sums of codes become sums of 16 rows, of which `left` exist; what their logits surely reach."""
    total = load_i32(found, place) * CODE_STEP + offset
    store_i32(sums, at, total)
    for lane in range(max(left, 0), 16):
        sums[at + lane] = 0
    factor = load_f32(scales, v) if left >= 16 else load_first(scales, v, max(left, 0))
    least = to_f32(total - bound) * (factor * splat_f32(scale))
    return maximum(_only(least, left), splat_f32(np.float32(-np.inf)))


@inner
def _only(least: F32x16, left: int) -> F32x16:
    """-infinity in lanes from `left` on."""
    if left >= 16:
        return least
    lanes = np.full(16, -np.inf, np.float32)
    store_first(lanes, 0, max(left, 0), least)
    return load_f32(lanes, 0)


@inner
def _tile_sums(zeros: Tile, codes: U8, at: int, q: I8, place: int, width: int, sums: I32) -> None:
    """32 rows times the half as many tokens as there are `zeros`, 8 columns a step."""
    low, high = zeros, zeros
    for k in range(0, width, 8):
        prefetch(codes, at + 16 * k + AHEAD)
        prefetch(codes, at + 16 * k + AHEAD + 64)
        u, v = load_u8(codes, at + 16 * k), load_u8(codes, at + 16 * k + 64)
        low = outer_rows(low, (u & 15, v & 15), q, place + k, width)
        high = outer_rows(high, (u >> 4, v >> 4), q, place + k + 4, width)
    store_tile(sums, 0, merge(low, high, 0))


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
    ahead, chosen = rows.view(np.uint8), np.empty(max(end - begin, 0) + SOON, np.int32)
    for t in range(scale.size):
        count = 0
        for v in range(begin, end):
            out[t, v] = LOWEST
            chosen[count] = v
            if not np.float32(np.int32(sums[t, v] + bounds[t])) * (scales[v] * scale[t]) < least[t]:
                count += 1
        for n in range(count, count + SOON):
            chosen[n] = chosen[max(count - 1, 0)]
        for n in range(count):
            v, next_row = chosen[n], chosen[n + SOON] * width
            for k in range(0, width, 64):
                prefetch_l2(ahead, next_row + k)
            total = row_sum(rows, v * width, activations, t * width, width, False)
            out[t, v] = logit(total, totals[v], scales[v], scale[t])
