"""Grouped-query causal attention over the paged KV cache.

For query head g of KV head h, row t with n = positions[t] + 1 visible positions, over float32 or float16 pages:

    s[p] = dot(q, k[p]) * (1 / sqrt(D))            dot in the order of summation.py
    e[p] = exp_nonpositive(s[p] - max s)
    z    = sum of e[p], in the same 16-lane order with lane = p % 16
    o[d] = (sum over p, ascending, of e[p] * v[p, d]) * (1 / z)        product rounded, then added, from +0

all in float32.  Over int8 pages both products are exact sums of integers (`attention_levels.py`).  Nothing depends on
other rows, on how prefill was cut into chunks, on which thread took which work, or on the CPU.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I32, U8, frozen, require, require_array, require_output, round_up
from trireme_kernels.attention_plan import plan_blocks, plan_bytes
from trireme_kernels.attention_scores import ROWS, attention_bytes, attention_scratch
from trireme_kernels.attention_share import Queries, attend_share
from trireme_kernels.jit import kernel
from trireme_kernels.kv import check_prefixes, check_rows
from trireme_kernels.kv_format import KvFormat, Pages


def attention(
    qkv: F32,
    heads: int,
    kv: KvFormat,
    pages: U8,
    table: I32,
    rows_slot: I32,
    positions: I32,
    out: F32,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Attend from T rows, each over positions 0 .. positions[t] of its slot (this micro-batch's own are appended).

    qkv          float32[T, W]; columns 0 .. heads * head_dim - 1 are the rotated queries
    heads        number of query heads, a multiple of kv_heads; heads / kv_heads neighbours share a KV head
    kv, pages, table, rows_slot, positions      as in `append_kv`
    out          float32[T, heads * head_dim], written where this part of the work lies
    part, parts  compute part number `part` of `parts` about equal ones (`attention_plan.py`): threads share the work

    Raises `KernelInputError`.
    """
    require("heads", heads > 0 and heads % kv.kv_heads == 0, "must be a positive multiple of kv_heads")
    require_array("qkv", qkv, np.float32, (ANY, ANY))
    tokens, width = qkv.shape
    require("qkv", width >= heads * kv.head_dim, f"must have at least {heads * kv.head_dim} columns, not {width}")
    kv.check(pages, written=False)
    check_rows(tokens, table, rows_slot, positions)
    check_prefixes(pages.shape[0], table, rows_slot, positions)
    require_output("out", out, np.float32, (tokens, heads * kv.head_dim))
    require("parts", parts > 0, "must be positive")
    require("part", 0 <= part < parts, f"must lie in 0..{parts - 1}")
    longest = int(positions.max()) + 1 if tokens else 1
    rows = min(tokens, ROWS)
    memory = np.empty(attention_bytes(rows, longest, kv.width) + plan_bytes(tokens) + 64, np.uint8)
    sizes = (rows, longest, round_up(memory.ctypes.data, 64))
    slots = (table.ctypes.data, table.shape[1], frozen(rows_slot), frozen(positions))
    _attention(frozen(qkv), heads, kv.compiled(pages), *slots, *sizes, part, parts, out)


@kernel
def _attention(
    qkv: F32,
    heads: int,
    pages: Pages,
    table: int,
    table_cols: int,
    slots: I32,
    positions: I32,
    rows: int,
    longest: int,
    memory: int,
    part: int,
    parts: int,
    out: F32,
) -> None:
    place = memory + (12 * (slots.size + 1) + 63) // 64 * 64
    plan = plan_blocks(slots, positions, slots.size, memory)
    batch = Queries(qkv.reshape(-1), qkv.shape[1], heads, table, table_cols, slots, positions, out.reshape(-1))
    attend_share(batch, pages, plan, part, parts, attention_scratch(place, rows, longest, pages.width))
