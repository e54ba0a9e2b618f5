"""The paged KV cache of one layer, as kernels see it.

    k_pages, v_pages  [P, KV, 16, D]         page, KV head, position, element; float32, or uint16 with bits of halves
    table             int32[S, max_pages]    page ids of each slot (a sequence); entry n holds positions 16n .. 16n+15

    slot s, position p  ->  page table[s, p // 16], row p % 16

          table[s]:  |  7 |  2 |  9 | ...        pages:   2: |p16 .. p31|   7: |p0 .. p15|   9: |p32 ..|

Within a page one head's 16 positions are contiguous.  Who owns a page is the caller's business; here ids are only
checked to exist, before anything is read or written.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I32, Pages, frozen, require, require_array, require_indices, require_output
from trireme_kernels.half import page_of_float
from trireme_kernels.jit import inner, kernel

PAGE_TOKENS = 16
"""Positions in a page."""


def append_kv(
    qkv: F32,
    k_offset: int,
    v_offset: int,
    k_pages: Pages,
    v_pages: Pages,
    table: I32,
    rows_slot: I32,
    positions: I32,
) -> None:
    """Store the keys and values of T rows in the pages of their slots, rounded to IEEE half where those are uint16.

    qkv                 float32[T, W]; keys are the KV * D columns from k_offset on, values those from v_offset on
    k_pages, v_pages    uint16 or float32 [P, KV, 16, D], written
    table               int32[S, max_pages]
    rows_slot           int32[T], slot of each row
    positions           int32[T], position of each row in its sequence; its page must be in the table

    Rows are stored in order: of two rows for one place the later stays.  Raises `KernelInputError`.
    """
    require_array("qkv", qkv, np.float32, (ANY, ANY))
    check_pages(k_pages, v_pages, written=True)
    width = k_pages.shape[1] * k_pages.shape[3]
    for name, offset in (("k_offset", k_offset), ("v_offset", v_offset)):
        require(name, 0 <= offset <= qkv.shape[1] - width, "must leave room for the heads in a row of qkv")
    check_rows(qkv.shape[0], table, rows_slot, positions)
    entries = table[rows_slot, positions // PAGE_TOKENS]
    require_indices("table", entries, k_pages.shape[0])
    _append(frozen(qkv), k_offset, k_pages, frozen(entries), frozen(positions))
    _append(frozen(qkv), v_offset, v_pages, frozen(entries), frozen(positions))


def check_pages(k_pages: Pages, v_pages: Pages, *, written: bool) -> None:
    """Check the two page arrays of a layer."""
    check = require_output if written else require_array
    dtype = np.float32 if getattr(k_pages, "dtype", None) == np.float32 else np.uint16
    check("k_pages", k_pages, dtype, (ANY, ANY, PAGE_TOKENS, ANY))
    check("v_pages", v_pages, dtype, k_pages.shape)


def check_rows(tokens: int, table: I32, rows_slot: I32, positions: I32) -> None:
    """Check that each of T rows names a slot of the table and a position that the table can hold."""
    require_array("table", table, np.int32, (ANY, ANY))
    require_array("rows_slot", rows_slot, np.int32, (tokens,))
    require_array("positions", positions, np.int32, (tokens,))
    require_indices("rows_slot", rows_slot, table.shape[0])
    require_indices("positions", positions, table.shape[1] * PAGE_TOKENS)


def check_prefixes(pages: int, table: I32, rows_slot: I32, positions: I32) -> None:
    """Check that every page of positions 0 .. positions[t] exists, for each row (after `check_rows`)."""
    good = _prefixes_exist(pages, frozen(table), frozen(rows_slot), frozen(positions))
    require("table", good, f"must name pages 0..{pages - 1} for every position of a row")


@kernel
def _prefixes_exist(pages: int, table: I32, rows_slot: I32, positions: I32) -> bool:
    for t in range(rows_slot.size):
        for n in range(positions[t] // PAGE_TOKENS + 1):
            page = table[rows_slot[t], n]
            if page < 0 or page >= pages:
                return False
    return True


@kernel
def _append(qkv: F32, offset: int, pages: Pages, entries: I32, positions: I32) -> None:
    heads, width = pages.shape[1], pages.shape[3]
    values, step = qkv.reshape(-1), qkv.shape[1]
    for t in range(entries.size):
        for head in range(heads):
            store_head(values, t * step + offset + head * width, pages, entries[t], head, positions[t] % PAGE_TOKENS)


@inner
def store_head(x: F32, at: int, pages: Pages, page: int, head: int, place: int) -> None:
    """Store the head x[at : at + D] in row `place` of a page, rounded where pages hold halves."""
    for d in range(pages.shape[3]):
        pages[page, head, place, d] = page_of_float(pages, x[at + d])
