"""Attention of HEADS query heads of one KV head over int8 pages, for the rows of one block, with sums of integers.

    q      levels as of keys and values (`kv_format.py`), one scale for each row and head
    s[p] = float32(sum of q * k levels) * scale of k[p] * fl(scale of q * fl(1 / sqrt(D)))
    e[p] = exp_nonpositive(s[p] - max s);   z = their sum, in the order of summation.py
    w[p] = e[p] * scale of v[p]

Weights w become 14-bit levels, in blocks of 64 positions from 0, 64, ... on, each with a scale of its own, so that a
block of small weights keeps its precision beside one with a large weight:

    m = max(largest w of the block, 1e-30);  level = round_half_even(w * fl(16383 / m))
    o[d] += float32(sum of levels * v levels) * fl(m / 16383)                      block by block, ascending, from +0
    o[d] * fl(1 / z)

Integer sums are exact in any order.  A level is split in two 7-bit digits, each multiplied by itself: the product of
bytes is then exact on every CPU.
"""

from typing import Any

import numpy as np

from trireme_kernels.attention_scores import BLOCK, HEADS, Heads, Scratch, exponentials, finish
from trireme_kernels.half import float_of_bits
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inner
from trireme_kernels.kv import head_address, quantise_head, upcoming
from trireme_kernels.kv_format import AHEAD_PAGES, PAGE_TOKENS, Pages
from trireme_kernels.simd import (
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
    tile,
    to_f32,
    where_less,
    zeros_f32,
    zeros_i32,
)

_ZERO, _ONE, _TOP, _SMALLEST = np.float32(0.0), np.float32(1.0), np.float32(16383.0), np.float32(1e-30)
_INFINITY = np.int32(0x7F800000)
_VECTORS = 4 * HEADS
_BLOCK_PAGES = BLOCK // PAGE_TOKENS
_ANY_BYTES = ISA.any_bytes


@inner
def attend_levels(h: Heads, pages: Pages, s: Scratch) -> None:
    """Everything for these heads and rows."""
    dim, width, last = pages.head_dim, pages.width, (h.position + h.rows - 1) // PAGE_TOKENS
    for q in range(h.rows * HEADS):
        source = h.at + q // HEADS * h.step + min(q % HEADS, h.heads - 1) * dim
        own, s.totals[q] = quantise_head(h.x, source, dim, width, s.q8, q * width)
        s.factors[q] = own * h.scale
    for n in range(0, last + 1, _BLOCK_PAGES):
        _score_block(h, pages, s, n, last)
    for q in range(h.rows * HEADS):
        s.factors[q] = _ONE / exponentials(s.scores, q * s.stride, h.position + q // HEADS + 1)
    for i in range(h.rows * HEADS * width):
        s.mixed[i] = _ZERO
    for n in range(0, last + 1, _BLOCK_PAGES):
        for i in range(max(0, PAGE_TOKENS * n - h.position), h.rows):
            _mix_block(h, pages, s, n, last, i)
    finish(h, s, dim, width)


@inner
def _score_block(h: Heads, pages: Pages, s: Scratch, n: int, last: int) -> None:
    """Scores of pages n .. n + 3, for the rows that see page n; behind the last page they mean nothing."""
    width, soon = pages.width, n + AHEAD_PAGES
    a, b, c, d = (
        _keys(h, pages, n, last),
        _keys(h, pages, n + 1, last),
        _keys(h, pages, n + 2, last),
        _keys(h, pages, n + 3, last),
    )
    e, f = upcoming(pages, h.ids, h.kv_head, soon, last, 0), upcoming(pages, h.ids, h.kv_head, soon + 1, last, 0)
    g, j = upcoming(pages, h.ids, h.kv_head, soon + 2, last, 0), upcoming(pages, h.ids, h.kv_head, soon + 3, last, 0)
    for i in range(max(0, PAGE_TOKENS * n - h.position), h.rows):
        total, q = tile(_VECTORS), i * HEADS * width
        for k in range(0, 16 * width, 64):
            prefetch_l2(e, k)
            prefetch_l2(f, k)
            prefetch_l2(g, k)
            prefetch_l2(j, k)
            keys = (load_u8(a, k), load_u8(b, k), load_u8(c, k), load_u8(d, k))
            if _ANY_BYTES:
                total = outer_rows(total, keys, s.q8, q, width)
            else:  # halves are at most 127
                low = (keys[0] >> 1, keys[1] >> 1, keys[2] >> 1, keys[3] >> 1)
                high = (keys[0] - low[0], keys[1] - low[1], keys[2] - low[2], keys[3] - low[3])
                total = outer_rows(outer_rows(total, low, s.q8, q, width), high, s.q8, q, width)
            q += 4
        store_tile(s.sums, 0, total)
        for r in range(HEADS):
            query = i * HEADS + r
            place = query * s.stride + PAGE_TOKENS * n
            offset, factor = splat_i32(127 * s.totals[query]), splat_f32(s.factors[query])
            for m in range(_BLOCK_PAGES):
                page = head_address(pages, h.ids[min(n + m, last)], h.kv_head)
                scales = floats_at(page + 2 * pages.value_bytes)
                level = to_f32(load_i32(s.sums, 64 * r + 16 * m) - offset)
                store_f32(s.scores, place + 16 * m, level * load_f32(scales, 0) * factor)


@inner
def _keys(h: Heads, pages: Pages, n: int, last: int) -> Any:
    return bytes_at(head_address(pages, h.ids[min(n, last)], h.kv_head))


@inner
def _mix_block(h: Heads, pages: Pages, s: Scratch, n: int, last: int, i: int) -> None:
    """Add the values of a block, pages n .. n + 3, to what row i has mixed so far."""
    width, factors = pages.width, h.rows * HEADS
    for r in range(HEADS):
        s.factors[factors + r] = _weight_levels(h, pages, s, n, last, i * HEADS + r, r)
    count = min(_BLOCK_PAGES, (h.position + i) // PAGE_TOKENS + 1 - n)
    to = i * HEADS * width
    for d in range(0, 16 * width, 512):
        total = tile(_VECTORS)
        for c in range(count):
            values = int8s_at(head_address(pages, h.ids[n + c], h.kv_head) + pages.value_bytes + d)
            ahead = upcoming(pages, h.ids, h.kv_head, n + c + AHEAD_PAGES, last, 1)
            for quad in range(4):
                prefetch_l2(ahead, d + 128 * quad)
                prefetch_l2(ahead, d + 128 * quad + 64)
                pair = (load_i8(values, 64 * quad), load_i8(values, 256 + 64 * quad))
                total = outer_rows(total, pair, s.levels, 4 * (4 * c + quad), BLOCK)
        store_tile(s.sums, 0, total)
        for r in range(2 * HEADS):
            digits = (load_i32(s.sums, 16 * r) << 7) + load_i32(s.sums, 16 * (2 * HEADS + r))
            more = to_f32(digits) * splat_f32(s.factors[factors + r // 2])
            store_f32(s.mixed, to, load_f32(s.mixed, to) + more)
            to += 16


@inner
def _weight_levels(h: Heads, pages: Pages, s: Scratch, n: int, last: int, query: int, r: int) -> np.float32:
    """Weights of the 64 positions from page n on as levels of head r; their scale, NaN if one is not finite.

    levels:  | high digits of head 0: 64 | .. of head R-1 | low digits of head 0: 64 | .. of head R-1 |
    """
    at = query * s.stride + PAGE_TOKENS * n
    bits, zero = zeros_i32(), zeros_f32()
    for c in range(_BLOCK_PAGES):
        scales = floats_at(head_address(pages, h.ids[min(n + c, last)], h.kv_head) + 2 * pages.value_bytes)
        share = load_f32(s.scores, at + 16 * c)
        w = where_less(zero, share, share * load_f32(scales, 16), zero)  # what nobody has written may be NaN
        bits = maximum(bits, bits_of(w))
        store_f32(s.scores, at + 16 * c, w)
    top = largest_lane(bits)
    finite = top < _INFINITY
    largest = max(float_of_bits(top), _SMALLEST) if finite else _ONE
    factor = splat_f32(_TOP / largest)
    for c in range(_BLOCK_PAGES):
        level = round_to_i32(load_f32(s.scores, at + 16 * c) * factor) if finite else zeros_i32()
        store_low_bytes(s.levels, BLOCK * r + 16 * c, level >> 7)
        store_low_bytes(s.levels, BLOCK * (HEADS + r) + 16 * c, level & 127)
    return largest / _TOP if finite else np.float32(np.nan)
