"""A ternary matrix times a micro-batch, as compiled code sees it: a range of tiles, any number of tokens.

Tokens come in groups of up to `GROUP`; the q of a group lies interleaved (drawn in `tile_sums.py`), groups one after
the other, so q takes tokens * padded bytes for any number of tokens, and with one token it is a plain row:

    q:  | tokens 0 .. 5 | tokens 6 .. 11 | the rest, interleaved by their own number |

Groups are as equal as they can be (8 tokens are 4 and 4, not 6 and 2): the bytes of a tile are decoded for each.

A tile's sums become floats while they are in the cache, and go where `action` says: stored, added to the residual, or
as 16 gated products of the 16 gate and 16 up rows of a tile.
"""

from typing import NamedTuple

import numpy as np

from trireme_kernels.arrays import F32, I8, I32, U8
from trireme_kernels.gates import gated
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inlined, inner
from trireme_kernels.packing import BLOCK_BYTES
from trireme_kernels.simd import (
    F32x16,
    I32x16,
    load_f32,
    load_first,
    load_i32,
    splat_f32,
    splat_i32,
    store_f32,
    store_first,
    to_f32,
)
from trireme_kernels.tile_sums import tile_sums_2bit, tile_sums_base3

GROUP = ISA.tokens
"""Tokens whose sums fit the registers together."""
CHUNK = 60
"""Tokens that meet a tile before the next one comes: their activations stay in the second-level cache.

A multiple of every group's size.
"""
STORE, ADD, GATE = -2, -1, 0
"""Actions; GATE + n is the activation number n of `gates.py`."""


class Weights(NamedTuple):
    """A packed matrix inside compiled code; unowned arrays."""

    data: U8
    scales: F32
    tiles: int
    blocks: int
    """Blocks of a tile."""
    cols: int
    """Padded columns."""


class Quantised(NamedTuple):
    """Quantised rows inside compiled code; unowned arrays, q in groups."""

    tokens: int
    q: I8
    scale: F32
    total: I32


@inlined
def linear_tiles(w: Weights, x: Quantised, out: F32, width: int, action: int, begin: int, end: int, sums: I32) -> None:
    """Tiles begin .. end-1 for all tokens; `out` has rows of `width` floats, `sums` is scratch int32[GROUP * 32]."""
    group = group_size(x.tokens)
    for chunk in range(0, x.tokens, CHUNK):
        for tile in range(begin, end):
            place = tile * w.blocks * BLOCK_BYTES
            for first in range(chunk, min(chunk + CHUNK, x.tokens), group):
                count = min(group, x.tokens - first)
                if w.cols == 16 * w.blocks:
                    tile_sums_2bit(w.data, place, w.blocks, x.q, first * w.cols, count, sums)
                else:
                    tile_sums_base3(w.data, place, w.blocks, x.q, first * w.cols, count, sums)
                _finish(w.scales, tile, x, first, count, out, width, action, sums)


@inner
def _finish(
    scales: F32, tile: int, x: Quantised, first: int, count: int, out: F32, width: int, action: int, sums: I32
) -> None:
    for t in range(count):
        total = splat_i32(x.total[first + t])
        low = _scaled(sums, 32 * t, total, scales[2 * tile] * x.scale[first + t])
        high = _scaled(sums, 32 * t + 16, total, scales[2 * tile + 1] * x.scale[first + t])
        row = (first + t) * width
        if action == STORE:
            store_f32(out, row + 32 * tile, low)
            store_f32(out, row + 32 * tile + 16, high)
        elif action == ADD:
            _add(out, row + 32 * tile, low, width - 32 * tile)
            _add(out, row + 32 * tile + 16, high, width - 32 * tile - 16)
        else:
            store_f32(out, row + 16 * tile, gated(action - GATE, low, high))


@inner
def _scaled(sums: I32, at: int, total: I32x16, factor: np.float32) -> F32x16:
    return to_f32(load_i32(sums, at) - total) * splat_f32(factor)


@inner
def _add(out: F32, at: int, value: F32x16, room: int) -> None:
    """Add to the residual, of which only `room` elements are left: the last tile may have padding rows."""
    if room >= 16:
        store_f32(out, at, load_f32(out, at) + value)
    elif room > 0:
        store_first(out, at, room, load_first(out, at, room) + value)


@inlined
def runtime(n: int) -> int:
    """The number n; a literal as argument would have the callee compiled for this number alone."""
    return np.int64(n)  # type: ignore[return-value]  # an int to compiled code


@inner
def group_size(tokens: int) -> int:
    """Tokens of each group but the last, which has the rest."""
    groups = max(1, (tokens + GROUP - 1) // GROUP)
    return (tokens + groups - 1) // groups


@inner
def group_place(t: int, tokens: int, cols: int) -> tuple[int, int]:
    """Where the row of token t begins in grouped q, and its step: the distance of its four-byte pieces."""
    group = group_size(tokens)
    first = t - t % group
    return first * cols + 4 * (t - first), 4 * min(group, tokens - first)
