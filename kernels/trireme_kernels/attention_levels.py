"""Attention of R query heads of one KV head over int8 pages, for the rows of one block: both products are of integers.

    q      levels as of keys and values (`kv_format.py`), one scale for each row and head
    s[p] = float32(sum of q * k levels) * scale of k[p] * fl(scale of q * fl(1 / sqrt(D)))
    e[p] = exp_nonpositive(s[p] - max s);   z = their sum, in the order of summation.py
    w[p] = e[p] * scale of v[p]

Weights w become 14-bit levels, in blocks of 64 positions from 0, 64, ... on, each with a scale of its own, so that a
block of small weights keeps its precision beside one with a large weight:

    m = max(largest w of the block, 1e-30);  level = round_half_even(w * fl(16383 / m))
    o[d] += float32(sum of levels * v levels) * fl(m / 16383)                    block by block, ascending, from +0
    o[d] * fl(1 / z)

Integer sums are exact in any order.  A level is split in two 7-bit digits, each multiplied by itself: the product of
bytes is then exact on every CPU.
"""

import numpy as np

from trireme_kernels.arrays import F32, I8, I32, U8
from trireme_kernels.attention_scores import BLOCK, Scratch, exponentials, finish
from trireme_kernels.half import float_of_bits
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inner
from trireme_kernels.kv import head_address, quantise_head, upcoming
from trireme_kernels.kv_format import AHEAD_PAGES, PAGE_TOKENS, Pages
from trireme_kernels.simd import (
    Tile,
    bits_of,
    bytes_at,
    floats_at,
    int8s_at,
    largest_lane,
    load_f32,
    load_i8,
    load_i32,
    load_u8,
    maximum,
    outer_rows,
    prefetch_l2,
    round_to_i32,
    splat_f32,
    splat_i32,
    store_f32,
    store_low_bytes,
    store_tile,
    to_f32,
    where_less,
    zeros_f32,
    zeros_i32,
)

_ONE, _TOP, _SMALLEST = np.float32(1.0), np.float32(16383.0), np.float32(1e-30)
_INFINITY = np.int32(0x7F800000)
_BLOCK_PAGES = BLOCK // PAGE_TOKENS
_ANY_BYTES = ISA.any_bytes


@inner
def attend_levels(
    four: Tile,
    x: F32,
    at: int,
    step: int,
    scale: np.float32,
    pages: Pages,
    ids: I32,
    head: int,
    position: int,
    rows: int,
    out: F32,
    to: int,
    out_step: int,
    s: Scratch,
) -> None:
    """Row i, at position + i, has its queries at x[at + i * step]; results go to out[to + i * out_step].

    four  zeros, 4 R vectors: this is what says R
    ids   page ids of the sequence
    """
    heads, width = len(four) // 4, pages.width
    for q in range(rows * heads):
        i, r = q // heads, q % heads
        source = at + i * step + r * pages.head_dim
        own, s.totals[q] = quantise_head(x, source, pages.head_dim, width, s.q8, q * width)
        s.factors[q] = own * scale
    last = (position + rows - 1) // PAGE_TOKENS
    for n in range(0, last + 1, _BLOCK_PAGES):
        _score_block(four, pages, ids, head, n, last, position, rows, s)
    for q in range(rows * heads):
        s.factors[q] = _ONE / exponentials(s.scores, q * s.stride, position + q // heads + 1)
    s.mixed[: rows * heads * width] = np.float32(0.0)
    for n in range(0, last + 1, _BLOCK_PAGES):
        for i in range(rows):
            if position + i >= PAGE_TOKENS * n:
                _mix_block(four, pages, ids, head, n, last, position + i, i, rows, s)
    finish(s, rows, heads, pages.head_dim, width, out, to, out_step)


@inner
def _score_block(
    four: Tile, pages: Pages, ids: I32, head: int, n: int, last: int, position: int, rows: int, s: Scratch
) -> None:
    """Scores of pages n .. n + 3, for the rows that see page n; behind the last page they mean nothing."""
    heads, width = len(four) // 4, pages.width
    a, b = _keys(pages, ids, head, n), _keys(pages, ids, head, min(n + 1, last))
    c, d = _keys(pages, ids, head, min(n + 2, last)), _keys(pages, ids, head, min(n + 3, last))
    soon = n + AHEAD_PAGES
    e, f = upcoming(pages, ids, head, soon, last, 0), upcoming(pages, ids, head, soon + 1, last, 0)
    g, h = upcoming(pages, ids, head, soon + 2, last, 0), upcoming(pages, ids, head, soon + 3, last, 0)
    for i in range(rows):
        if position + i < PAGE_TOKENS * n:
            continue
        total, q = four, i * heads * width
        for k in range(0, 16 * width, 64):
            prefetch_l2(e, k)
            prefetch_l2(f, k)
            prefetch_l2(g, k)
            prefetch_l2(h, k)
            keys = (load_u8(a, k), load_u8(b, k), load_u8(c, k), load_u8(d, k))
            if _ANY_BYTES:
                total = outer_rows(total, keys, s.q8, q, width)
            else:  # halves are at most 127
                low = (keys[0] >> 1, keys[1] >> 1, keys[2] >> 1, keys[3] >> 1)
                high = (keys[0] - low[0], keys[1] - low[1], keys[2] - low[2], keys[3] - low[3])
                total = outer_rows(outer_rows(total, low, s.q8, q, width), high, s.q8, q, width)
            q += 4
        store_tile(s.sums, 0, total)
        for r in range(heads):
            place = (i * heads + r) * s.stride + PAGE_TOKENS * n
            offset, factor = splat_i32(127 * s.totals[i * heads + r]), splat_f32(s.factors[i * heads + r])
            for m in range(_BLOCK_PAGES):
                scales = floats_at(head_address(pages, ids[min(n + m, last)], head) + 32 * width)
                level = to_f32(load_i32(s.sums, 64 * r + 16 * m) - offset)
                store_f32(s.scores, place + 16 * m, level * load_f32(scales, 0) * factor)


@inner
def _keys(pages: Pages, ids: I32, head: int, n: int) -> U8:
    keys: U8 = bytes_at(head_address(pages, ids[n], head))
    return keys


@inner
def _mix_block(
    four: Tile, pages: Pages, ids: I32, head: int, n: int, last: int, position: int, i: int, rows: int, s: Scratch
) -> None:
    """Add the values of a block, pages n .. n + 3, to what row i has mixed so far."""
    heads, width = len(four) // 4, pages.width
    factors = rows * heads
    for r in range(heads):
        place = (i * heads + r) * s.stride + PAGE_TOKENS * n
        s.factors[factors + r] = _weight_levels(pages, ids, head, n, last, s.scores, place, r, heads, s.levels)
    count = min(_BLOCK_PAGES, position // PAGE_TOKENS + 1 - n)
    to = i * heads * width
    for d in range(0, 16 * width, 512):
        total = four
        for c in range(count):
            values = int8s_at(head_address(pages, ids[n + c], head) + 16 * width + d)
            ahead = upcoming(pages, ids, head, n + c + AHEAD_PAGES, last, 1)
            for quad in range(4):
                prefetch_l2(ahead, d + 128 * quad)
                prefetch_l2(ahead, d + 128 * quad + 64)
                pair = (load_i8(values, 64 * quad), load_i8(values, 256 + 64 * quad))
                total = outer_rows(total, pair, s.levels, 4 * (4 * c + quad), BLOCK)
        store_tile(s.sums, 0, total)
        for r in range(2 * heads):
            digits = (load_i32(s.sums, 16 * r) << 7) + load_i32(s.sums, 16 * (2 * heads + r))
            more = to_f32(digits) * splat_f32(s.factors[factors + r // 2])
            store_f32(s.mixed, to, load_f32(s.mixed, to) + more)
            to += 16


@inner
def _weight_levels(
    pages: Pages, ids: I32, head: int, n: int, last: int, e: F32, at: int, r: int, heads: int, levels: I8
) -> np.float32:
    """Weights of the 64 positions from e[at] on as levels of query head r; their scale, NaN if one is not finite.

    levels:  | high digits of head 0: 64 | .. of head R-1 | low digits of head 0: 64 | .. of head R-1 |
    """
    bits, zero = zeros_i32(), zeros_f32()
    for c in range(_BLOCK_PAGES):
        scales = floats_at(head_address(pages, ids[min(n + c, last)], head) + 32 * pages.width + 64)
        share = load_f32(e, at + 16 * c)
        w = where_less(zero, share, share * load_f32(scales, 0), zero)  # what nobody has written may be NaN
        bits = maximum(bits, bits_of(w))
        store_f32(e, at + 16 * c, w)
    top = largest_lane(bits)
    finite = top < _INFINITY
    largest = max(float_of_bits(top), _SMALLEST) if finite else _ONE
    factor = splat_f32(_TOP / largest)
    for c in range(_BLOCK_PAGES):
        level = round_to_i32(load_f32(e, at + 16 * c) * factor) if finite else zeros_i32()
        store_low_bytes(levels, BLOCK * r + 16 * c, level >> 7)
        store_low_bytes(levels, BLOCK * (heads + r) + 16 * c, level & 127)
    return largest / _TOP if finite else np.float32(np.nan)
