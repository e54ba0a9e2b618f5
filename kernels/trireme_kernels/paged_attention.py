"""Grouped-query causal attention over the paged KV cache.

For query head g of KV head h, row t with n = positions[t] + 1 visible positions:

    s[p] = dot(q, k[p]) * (1 / sqrt(D))            dot in the order of summation.py
    e[p] = exp_nonpositive(s[p] - max s)
    z    = sum of e[p], in the same 16-lane order with lane = p % 16
    o[d] = (sum over p, ascending, of e[p] * v[p, d]) * (1 / z)        product rounded, then added, from +0

all in float32.  Nothing depends on other rows, on how prefill was cut into chunks, or on which thread took which work
item: a work item is one (row, KV head), numbered t * KV + h, and writes its own columns of `out`.
"""

import numpy as np

from trireme_kernels.arrays import (
    ANY,
    F32,
    I32,
    Pages,
    frozen,
    require,
    require_array,
    require_output,
    round_up,
    work_range,
)
from trireme_kernels.exponential import exp_nonpositive
from trireme_kernels.half import float_of_page
from trireme_kernels.jit import inner, kernel
from trireme_kernels.kv import PAGE_TOKENS, check_pages, check_prefixes, check_rows
from trireme_kernels.summation import dot, lane_sum

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def attention(
    qkv: F32,
    heads: int,
    kv_heads: int,
    head_dim: int,
    k_pages: Pages,
    v_pages: Pages,
    table: I32,
    rows_slot: I32,
    positions: I32,
    out: F32,
    begin: int = 0,
    end: int | None = None,
) -> None:
    """Attend from T rows, each over positions 0 .. positions[t] of its slot (this micro-batch's own are appended).

    qkv         float32[T, W]; columns 0 .. heads * head_dim - 1 are the rotated queries
    heads       number of query heads, a multiple of kv_heads; heads/kv_heads neighbours share a KV head
    k_pages, v_pages, table, rows_slot, positions      as in `append_kv`
    out         float32[T, heads * head_dim], written where the work items lie
    begin, end  work items t * kv_heads + h to compute, all by default

    Raises `KernelInputError`.
    """
    require("head_dim", head_dim > 0, "must be positive")
    require("kv_heads", kv_heads > 0, "must be positive")
    require("heads", heads > 0 and heads % kv_heads == 0, "must be a positive multiple of kv_heads")
    require_array("qkv", qkv, np.float32, (ANY, ANY))
    tokens, width = qkv.shape
    require("qkv", width >= heads * head_dim, f"must have at least {heads * head_dim} columns, not {width}")
    check_pages(k_pages, v_pages, written=False)
    require("k_pages", k_pages.shape[1::2] == (kv_heads, head_dim), "must match kv_heads and head_dim")
    check_rows(tokens, table, rows_slot, positions)
    check_prefixes(k_pages.shape[0], table, rows_slot, positions)
    require_output("out", out, np.float32, (tokens, heads * head_dim))
    begin, end = work_range(begin, end, tokens * kv_heads)
    longest = round_up(int(positions.max()) + 1, PAGE_TOKENS) if begin < end else PAGE_TOKENS
    group = heads // kv_heads
    scale = _ONE / np.sqrt(np.float32(head_dim))
    pages, rows = (frozen(k_pages), frozen(v_pages), frozen(table)), (frozen(rows_slot), frozen(positions))
    _attention(frozen(qkv), group, scale, *pages, *rows, out, longest, begin, end)


@kernel
def _attention(
    qkv: F32,
    group: int,
    scale: np.float32,
    k_pages: Pages,
    v_pages: Pages,
    table: I32,
    rows_slot: I32,
    positions: I32,
    out: F32,
    longest: int,
    begin: int,
    end: int,
) -> None:
    kv_heads, width = k_pages.shape[1], k_pages.shape[3]
    scores = np.empty((group, longest), np.float32)
    page = np.empty(PAGE_TOKENS * width, np.float32)
    for item in range(begin, end):
        t, head = item // kv_heads, item % kv_heads
        pages, count = table[rows_slot[t]], positions[t] + 1
        q = qkv[t, head * group * width : (head + 1) * group * width]
        o = out[t, head * group * width : (head + 1) * group * width]
        attend(q, scale, k_pages, v_pages, pages, head, count, page, scores, o)


@inner
def attend(
    q: F32,
    scale: np.float32,
    k_pages: Pages,
    v_pages: Pages,
    pages: I32,
    head: int,
    count: int,
    page: F32,
    scores: F32,
    o: F32,
) -> None:
    """One work item: the query heads q float32[group * D] of one row over positions 0 .. count-1 of a KV head.

    pages lists the page ids of the row's slot; page float32[16 * D] and scores float32[group, >= count up to 16] are
    scratch; o float32[group * D] is written.
    """
    _scores(q, scale, k_pages, pages, head, count, page, scores)
    o[:] = _ZERO
    _mix(v_pages, pages, head, count, page, scores, o)


@inner
def _scores(
    q: F32, scale: np.float32, k_pages: Pages, pages: I32, head: int, count: int, page: F32, scores: F32
) -> None:
    """scores[g, p] = dot(q[g], k[p]) * scale; a page is widened once for all query heads of the group."""
    width = k_pages.shape[3]
    for first in range(0, count, PAGE_TOKENS):
        tokens = min(PAGE_TOKENS, count - first)
        _widen(k_pages[pages[first // PAGE_TOKENS], head], tokens, page)
        for g in range(scores.shape[0]):
            for p in range(tokens):
                scores[g, first + p] = dot(q, g * width, page, p * width, width) * scale


@inner
def _mix(v_pages: Pages, pages: I32, head: int, count: int, page: F32, scores: F32, o: F32) -> None:
    """o[g] = softmax(scores[g]) @ v; scores become their exponentials."""
    width = v_pages.shape[3]
    group = scores.shape[0]
    for g in range(group):
        _exponentials(scores[g], count)
    for first in range(0, count, PAGE_TOKENS):
        tokens = min(PAGE_TOKENS, count - first)
        _widen(v_pages[pages[first // PAGE_TOKENS], head], tokens, page)
        for g in range(group):
            for p in range(tokens):
                weight = scores[g, first + p]
                for d in range(width):
                    o[g * width + d] += weight * page[p * width + d]
    for g in range(group):
        share = _ONE / lane_sum(scores[g], 0, (count + 15) // 16)
        for d in range(width):
            o[g * width + d] *= share


@inner
def _exponentials(scores: F32, count: int) -> None:
    """Replace count scores by exp(score - largest) and fill their last block of 16 with zeros."""
    top = scores[0]
    for p in range(1, count):
        top = max(top, scores[p])
    for p in range(count):
        scores[p] = exp_nonpositive(scores[p] - top)
    for p in range(count, (count + 15) // 16 * 16):
        scores[p] = _ZERO


@inner
def _widen(rows: Pages, tokens: int, page: F32) -> None:
    """The first `tokens` rows of a page [16, D] as float32."""
    width = rows.shape[1]
    for p in range(tokens):
        for d in range(width):
            page[p * width + d] = float_of_page(rows[p, d])
