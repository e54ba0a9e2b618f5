"""Attention of R query heads of one KV head over float32 or float16 pages, for the rows of one block.

Keys of a page lie element by element, so that a vector is one element of 16 positions and a score needs no sum within
a vector.  The order of `summation.py` stays: partial sums of elements i, i + 16, ... first, then partial sums 8, 4, 2
and 1 apart, four partial sums of R heads at a time in registers.  One row reads the pages where they lie; several
share a widened copy.
"""

import numpy as np

from trireme_kernels.arrays import F32, I32, U8, U16
from trireme_kernels.attention_scores import Scratch, exponentials, finish
from trireme_kernels.jit import inner
from trireme_kernels.kv import head_address, load_head, upcoming
from trireme_kernels.kv_format import AHEAD_PAGES, PAGE_TOKENS, Pages
from trireme_kernels.simd import (
    FloatTile,
    add_tiles,
    item_bytes,
    load_f32,
    load_tile,
    load_wide,
    numbers_at,
    outer_f32,
    prefetch_l2,
    scale_tile_f32,
    store_f32,
    store_rows,
)

_TOGETHER = 4
"""Pages whose values meet the sums while these are in registers."""


@inner
def attend_floats(
    one: FloatTile,
    two: FloatTile,
    like: F32 | U16,
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

    one, two  zeros, R and 2 R vectors: R is their length
    like      any array with the element type of the pages; another type is another compilation
    ids       page ids of the sequence
    """
    heads, width = len(one), pages.width
    _copy_queries(x, at, step, rows * heads, heads, pages.head_dim, width, s.q)
    last = (position + rows - 1) // PAGE_TOKENS
    for n in range(last + 1):
        keys = numbers_at(head_address(pages, ids[n], head), like)
        ahead = upcoming(pages, ids, head, n + AHEAD_PAGES, last, 0)
        if rows > 1:
            _widen(keys, PAGE_TOKENS * width, s.page)
        for i in range(rows):
            place = i * heads * s.stride + PAGE_TOKENS * n
            if position + i < PAGE_TOKENS * n:
                continue
            if rows > 1:
                total = _score(one, s.q, i * heads * width, width, s.page, like, ahead)
            else:
                total = _score(one, s.q, 0, width, keys, like, ahead)
            store_rows(s.scores, place, s.stride, scale_tile_f32(total, scale))
    for q in range(rows * heads):
        s.factors[q] = np.float32(1.0) / exponentials(s.scores, q * s.stride, position + q // heads + 1)
    s.mixed[: rows * heads * width] = np.float32(0.0)
    if rows == 1:
        for n in range(0, last + 1, _TOGETHER):
            place, count = PAGE_TOKENS * n, min(PAGE_TOKENS * _TOGETHER, position + 1 - PAGE_TOKENS * n)
            _mix_pages(two, like, s.scores, place, s.stride, pages, ids, head, n, last, count, s.mixed)
    else:
        for n in range(last + 1):
            values = numbers_at(head_address(pages, ids[n], head) + 16 * item_bytes(like) * width, like)
            _widen(values, PAGE_TOKENS * width, s.page)
            for i in range(rows):
                place, count = i * heads * s.stride + PAGE_TOKENS * n, position + i + 1 - PAGE_TOKENS * n
                _mix(two, s.scores, place, s.stride, s.page, width, min(PAGE_TOKENS, count), s.mixed, i * heads * width)
    finish(s, rows, heads, pages.head_dim, width, out, to, out_step)


@inner
def _copy_queries(x: F32, at: int, step: int, queries: int, heads: int, dim: int, width: int, q: F32) -> None:
    for n in range(queries):
        source, to = at + n // heads * step + n % heads * dim, n * width
        for d in range(0, width, 16):
            store_f32(q, to + d, load_head(x, source + d, dim - d))


@inner
def _widen(numbers: F32 | U16, count: int, page: F32) -> None:
    for i in range(0, count, 16):
        store_f32(page, i, load_wide(numbers, i))


@inner
def _score(zeros: FloatTile, q: F32, at: int, width: int, keys: F32 | U16, like: F32 | U16, ahead: U8) -> FloatTile:
    """Dot products of the queries q[at + r * width ..] with the 16 keys of a page."""
    a, c = _quarter(zeros, q, at, width, keys, like, 0, ahead), _quarter(zeros, q, at, width, keys, like, 2, ahead)
    even = add_tiles(a, c)
    b, d = _quarter(zeros, q, at, width, keys, like, 1, ahead), _quarter(zeros, q, at, width, keys, like, 3, ahead)
    return add_tiles(even, add_tiles(b, d))


@inner
def _quarter(
    zeros: FloatTile, q: F32, at: int, width: int, keys: F32 | U16, like: F32 | U16, j: int, ahead: U8
) -> FloatTile:
    """The partial sums j, j + 8, j + 4 and j + 12 (elements with that number modulo 16), added up."""
    a, b, c, d = zeros, zeros, zeros, zeros
    for i in range(j, width, 16):
        for line in range(item_bytes(like)):
            prefetch_l2(ahead, 4 * item_bytes(like) * (width * j + i - j) + 64 * line)
        a = outer_f32(a, (load_wide(keys, 16 * i),), q, at + i, width)
        b = outer_f32(b, (load_wide(keys, 16 * i + 128),), q, at + i + 8, width)
        c = outer_f32(c, (load_wide(keys, 16 * i + 64),), q, at + i + 4, width)
        d = outer_f32(d, (load_wide(keys, 16 * i + 192),), q, at + i + 12, width)
    return add_tiles(add_tiles(a, b), add_tiles(c, d))


@inner
def _mix(
    zeros: FloatTile, weights: F32, at: int, stride: int, values: F32, width: int, count: int, mixed: F32, to: int
) -> None:
    """Add the first `count` values of a page, weighted, by ascending position: 32 elements of R heads at a time."""
    for d in range(0, width, 32):
        total = load_tile(zeros, mixed, to)
        for p in range(count):
            pair = (load_f32(values, width * p + d), load_f32(values, width * p + d + 16))
            total = outer_f32(total, pair, weights, at + p, stride)
        store_rows(mixed, to, 16, total)
        to += 16 * len(zeros)


@inner
def _mix_pages(
    zeros: FloatTile,
    like: F32 | U16,
    weights: F32,
    at: int,
    stride: int,
    pages: Pages,
    ids: I32,
    head: int,
    n: int,
    last: int,
    count: int,
    mixed: F32,
) -> None:
    """The same with `count` values from page n on, as they lie in the pages."""
    width, to, item = pages.width, 0, item_bytes(like)
    for d in range(0, width, 32):
        total = load_tile(zeros, mixed, to)
        for first in range(0, count, PAGE_TOKENS):
            page = n + first // PAGE_TOKENS
            values = numbers_at(head_address(pages, ids[page], head) + item * (16 * width + d), like)
            ahead = upcoming(pages, ids, head, page + AHEAD_PAGES, last, 1)
            for p in range(min(PAGE_TOKENS, count - first)):
                for line in range(0, 32 * item, 64):
                    prefetch_l2(ahead, item * (width * p + d) + line)
                pair = (load_wide(values, width * p), load_wide(values, width * p + 16))
                total = outer_f32(total, pair, weights, at + first + p, stride)
        store_rows(mixed, to, 16, total)
        to += 16 * len(zeros)
