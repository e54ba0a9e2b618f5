"""A thread's share of the attention of one layer: blocks and chunks of `attention_plan.py`, one after the other."""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from trireme_kernels.arrays import F32, I32
from trireme_kernels.attention_floats import attend_floats
from trireme_kernels.attention_levels import attend_levels
from trireme_kernels.attention_plan import Plan, chunks_of
from trireme_kernels.attention_scores import HEADS, Heads, Scratch
from trireme_kernels.jit import by_type, inlined
from trireme_kernels.kv_format import Pages
from trireme_kernels.simd import int32s_at


class Queries(NamedTuple):
    """What the attention of a micro-batch reads and writes beside the pages."""

    qkv: F32
    row: int
    """Floats of a row of qkv."""
    heads: int
    table: int
    """Address of the table of pages."""
    table_cols: int
    slots: I32
    positions: I32
    out: F32
    """Rows of heads * head_dim floats."""


@by_type
def _attend(h: Any, pages: Any, s: Any) -> Any:  # noqa: ARG001  # Numba compares the names
    """Attention of the given heads over pages of any type."""
    if pages.types[-1].dtype == types.int8:
        return lambda h, pages, s: attend_levels(h, pages, s)  # noqa: PLW0108  # Numba wants a plain function
    return lambda h, pages, s: attend_floats(h, pages, s)  # noqa: PLW0108


@inlined
def attend_share(b: Queries, pages: Pages, plan: Plan, rank: int, threads: int, s: Scratch) -> None:
    """Attention of this thread's blocks and chunks."""
    dim, group = pages.head_dim, b.heads // pages.kv_heads
    per_head = (group + HEADS - 1) // HEADS
    scale = np.float32(1.0) / np.sqrt(np.float32(dim))
    for block in range(plan.blocks):
        t, rows = plan.first[block], plan.first[block + 1] - plan.first[block]
        begin, end = chunks_of(plan, block, pages.kv_heads * per_head, rank, threads)
        ids = int32s_at(b.table + 4 * b.slots[t] * b.table_cols)
        for chunk in range(begin, end):
            kv_head, before = chunk // per_head, chunk % per_head * HEADS
            head, count = kv_head * group + before, min(HEADS, group - before)
            at, to = t * b.row + head * dim, (t * b.heads + head) * dim
            queries = (b.qkv, at, b.row, scale, kv_head, ids, b.positions[t], rows, count)
            _attend(Heads(*queries, b.out, to, b.heads * dim), pages, s)
