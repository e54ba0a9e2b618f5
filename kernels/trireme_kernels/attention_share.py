"""A thread's share of a layer's attention: blocks of `attention_plan.py`, R query heads of one KV head at a time."""

import numpy as np

from trireme_kernels.arrays import F32, I32
from trireme_kernels.attention_floats import attend_floats
from trireme_kernels.attention_levels import attend_levels
from trireme_kernels.attention_plan import Plan, heads_of
from trireme_kernels.attention_scores import HEADS, Scratch
from trireme_kernels.jit import inner
from trireme_kernels.kv_format import Pages
from trireme_kernels.simd import floats_at, halves_at, tile, tile_f32


def _attend_narrow(
    x: F32, at: int, step: int, scale: np.float32, pages: Pages, ids: I32, head: int, position: int, rows: int,
    out: F32, to: int, out_step: int, s: Scratch, heads: int,  # noqa: ARG001  # the signature of `_attend_wide`
) -> int:  # fmt: skip
    where = (pages, ids, head, position, rows, out, to, out_step, s)
    if pages.item == 1:
        attend_levels(tile(4), x, at, step, scale, *where)
    elif pages.item == 2:
        attend_floats(tile_f32(1), tile_f32(2), halves_at(0), x, at, step, scale, *where)
    else:
        attend_floats(tile_f32(1), tile_f32(2), floats_at(0), x, at, step, scale, *where)
    return 1


def _attend_wide(
    x: F32, at: int, step: int, scale: np.float32, pages: Pages, ids: I32, head: int, position: int, rows: int,
    out: F32, to: int, out_step: int, s: Scratch, heads: int,
) -> int:  # fmt: skip
    if heads < HEADS:
        return _one(x, at, step, scale, pages, ids, head, position, rows, out, to, out_step, s, heads)
    where = (pages, ids, head, position, rows, out, to, out_step, s)
    if pages.item == 1:
        attend_levels(tile(16), x, at, step, scale, *where)
    elif pages.item == 2:
        attend_floats(tile_f32(4), tile_f32(8), halves_at(0), x, at, step, scale, *where)
    else:
        attend_floats(tile_f32(4), tile_f32(8), floats_at(0), x, at, step, scale, *where)
    return HEADS


_one = inner(_attend_narrow)
_some = inner(_attend_wide) if HEADS > 1 else _one
"""Attend with as many of `heads` query heads as go together; returns how many."""


@inner
def attend_share(
    qkv: F32,
    row: int,
    heads: int,
    scale: np.float32,
    pages: Pages,
    table: I32,
    slots: I32,
    positions: I32,
    plan: Plan,
    rank: int,
    threads: int,
    out: F32,
    s: Scratch,
) -> None:
    """Attention of this thread's blocks and heads; rows of `qkv` have `row` floats, rows of `out` heads * head_dim."""
    dim, group = pages.head_dim, heads // pages.kv_heads
    for block in range(plan.blocks):
        t, end = plan.first[block], plan.first[block + 1]
        g, stop = heads_of(plan, block, heads, rank, threads)
        ids, position = table[slots[t]], positions[t]
        while g < stop:
            left = min(stop, (g // group + 1) * group) - g
            at, to = t * row + g * dim, (t * heads + g) * dim
            g += _some(qkv, at, row, scale, pages, ids, g // group, position, end - t, out, to, heads * dim, s, left)
