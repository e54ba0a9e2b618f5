"""Attention of HEADS query heads of one KV head over float32 or float16 pages, for the rows of one block.

Keys of a page lie element by element, so that a vector is one element of 16 positions and a score needs no sum within
a vector.  The order of `summation.py` stays: partial sums of elements i, i + 16, ... first, then partial sums 8, 4, 2
and 1 apart; four partial sums of all heads at a time are in registers.  One row reads numbers where they lie; several
share a widened copy.
"""

from typing import Any

import numpy as np

from trireme_kernels.arrays import F32, U8
from trireme_kernels.attention_scores import HEADS, Heads, Scratch, exponentials, finish
from trireme_kernels.jit import inner
from trireme_kernels.kv import head_address, load_head, upcoming
from trireme_kernels.kv_format import AHEAD_PAGES, PAGE_TOKENS, Pages
from trireme_kernels.simd import (
    FloatTile,
    add_tiles,
    item_bytes,
    like_at,
    load_tile,
    load_wide,
    outer_f32,
    prefetch_l2,
    scale_tile_f32,
    store_f32,
    store_rows,
    tile_f32,
)

_PAIRS = 2 * HEADS
_TOGETHER = 4
"""Pages whose values meet the sums while these are in registers."""
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)


@inner
def attend_floats(h: Heads, pages: Pages, s: Scratch) -> None:
    """Everything for these heads and rows."""
    width, last = pages.width, (h.position + h.rows - 1) // PAGE_TOKENS
    _copy_queries(h, pages.head_dim, width, s.q)
    for n in range(last + 1):
        keys = like_at(head_address(pages, h.ids[n], h.kv_head), pages.like)
        ahead = upcoming(pages, h.ids, h.kv_head, n + AHEAD_PAGES, last, 0)
        if h.rows == 1:
            _score(s.q, 0, width, keys, ahead, h.scale, s, PAGE_TOKENS * n)
        else:
            _widen(keys, width, s.page)
            for i in range(max(0, PAGE_TOKENS * n - h.position), h.rows):
                place = i * HEADS * s.stride + PAGE_TOKENS * n
                _score(s.q, i * HEADS * width, width, s.page, ahead, h.scale, s, place)
    for q in range(h.rows * HEADS):
        s.factors[q] = _ONE / exponentials(s.scores, q * s.stride, h.position + q // HEADS + 1)
    for i in range(h.rows * HEADS * width):
        s.mixed[i] = _ZERO
    if h.rows == 1:
        for n in range(0, last + 1, _TOGETHER):
            _mix_pages(h, pages, s, n, last)
    else:
        for n in range(last + 1):
            _widen(like_at(head_address(pages, h.ids[n], h.kv_head) + pages.value_bytes, pages.like), width, s.page)
            for i in range(h.rows):
                _mix(s, i, PAGE_TOKENS * n, width, min(PAGE_TOKENS, h.position + i + 1 - PAGE_TOKENS * n))
    finish(h, s, pages.head_dim, width)


@inner
def _copy_queries(h: Heads, dim: int, width: int, q: F32) -> None:
    for n in range(h.rows * HEADS):
        source = h.at + n // HEADS * h.step + min(n % HEADS, h.heads - 1) * dim
        for d in range(0, width, 16):
            store_f32(q, n * width + d, load_head(h.x, source + d, dim - d))


@inner
def _widen(numbers: Any, width: int, page: F32) -> None:
    for i in range(0, PAGE_TOKENS * width, 16):
        store_f32(page, i, load_wide(numbers, i))


@inner
def _score(q: F32, at: int, width: int, keys: Any, ahead: U8, scale: np.float32, s: Scratch, place: int) -> None:
    """Scores of the queries q[at + r * width ..] with the 16 keys of a page."""
    j = int(np.int64(0))  # a literal would have `_quarter` compiled for each number
    even = add_tiles(_quarter(q, at, width, keys, j, ahead), _quarter(q, at, width, keys, j + 2, ahead))
    odd = add_tiles(_quarter(q, at, width, keys, j + 1, ahead), _quarter(q, at, width, keys, j + 3, ahead))
    store_rows(s.scores, place, s.stride, scale_tile_f32(add_tiles(even, odd), scale))


@inner
def _quarter(q: F32, at: int, width: int, keys: Any, j: int, ahead: U8) -> FloatTile:
    """The partial sums j, j + 8, j + 4 and j + 12 (elements with that number modulo 16), added up."""
    size, a = item_bytes(keys), tile_f32(HEADS)
    b, c, d = a, a, a
    for i in range(j, width, 16):
        for line in range(0, 64 * size, 64):
            prefetch_l2(ahead, 4 * size * (width * j + i - j) + line)
        a = outer_f32(a, (load_wide(keys, 16 * i),), q, at + i, width)
        b = outer_f32(b, (load_wide(keys, 16 * i + 128),), q, at + i + 8, width)
        c = outer_f32(c, (load_wide(keys, 16 * i + 64),), q, at + i + 4, width)
        d = outer_f32(d, (load_wide(keys, 16 * i + 192),), q, at + i + 12, width)
    return add_tiles(add_tiles(a, b), add_tiles(c, d))


@inner
def _mix(s: Scratch, i: int, first: int, width: int, count: int) -> None:
    """Add `count` values of the widened page, weighted, by ascending position: 32 elements of all heads at a time."""
    at, to = i * HEADS * s.stride + first, i * HEADS * width
    for d in range(0, width, 32):
        total = load_tile(tile_f32(_PAIRS), s.mixed, to)
        for p in range(count):
            pair = (load_wide(s.page, width * p + d), load_wide(s.page, width * p + d + 16))
            total = outer_f32(total, pair, s.scores, at + p, s.stride)
        store_rows(s.mixed, to, 16, total)
        to += 32 * HEADS


@inner
def _mix_pages(h: Heads, pages: Pages, s: Scratch, n: int, last: int) -> None:
    """The same for a single row, with up to four pages from page n on, where they lie."""
    width, size, to = pages.width, item_bytes(pages.like), 0
    for d in range(0, width, 32):
        total = load_tile(tile_f32(_PAIRS), s.mixed, to)
        for page in range(n, min(n + _TOGETHER, last + 1)):
            first = PAGE_TOKENS * page
            place = head_address(pages, h.ids[page], h.kv_head) + pages.value_bytes
            values = like_at(place, pages.like)
            ahead = upcoming(pages, h.ids, h.kv_head, page + AHEAD_PAGES, last, 1)
            for p in range(min(PAGE_TOKENS, h.position + 1 - first)):
                for line in range(0, 32 * size, 64):
                    prefetch_l2(ahead, size * (width * p + d) + line)
                pair = (load_wide(values, width * p + d), load_wide(values, width * p + d + 16))
                total = outer_f32(total, pair, s.scores, first + p, s.stride)
        store_rows(s.mixed, to, 16, total)
        to += 32 * HEADS
