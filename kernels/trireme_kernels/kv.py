"""Keys and values into their pages (`kv_format.py`), and the checks of the tables that lead to them.

    table             int32[S, max_pages]    page ids of each slot (a sequence); entry n holds positions 16n .. 16n+15

    slot s, position p  ->  page table[s, p // 16], place p % 16

          table[s]:  |  7 |  2 |  9 | ...        pages:   2: |p16 .. p31|   7: |p0 .. p15|   9: |p32 ..|

Who owns a page is the caller's business; here ids are only checked to exist, before anything is read or written.
"""

from typing import Any

import numpy as np
from numba import types

from trireme_kernels.arrays import ANY, F32, I8, I32, U8, frozen, require, require_array, require_indices
from trireme_kernels.half import float_of_bits, page_of_float
from trireme_kernels.jit import by_type, inlined, inner, kernel
from trireme_kernels.kv_format import PAGE_TOKENS, KvFormat, Pages
from trireme_kernels.simd import (
    F32x16,
    absolute,
    bits_of,
    bytes_at,
    floats_at,
    int8s_at,
    largest_lane,
    like_at,
    load_f32,
    load_first,
    maximum,
    round_to_i32,
    splat_f32,
    store_low_bytes,
    sum_lanes,
    zeros_i32,
)

_ZERO, _ONE, _TOP, _SMALLEST = np.float32(0.0), np.float32(1.0), np.float32(127.0), np.float32(1e-30)
_INFINITY = np.int32(0x7F800000)


def append_kv(
    qkv: F32, k_offset: int, v_offset: int, kv: KvFormat, pages: U8, table: I32, rows_slot: I32, positions: I32
) -> None:
    """Store the keys and values of T rows in the pages of their slots, rounded as `kv` says.

    qkv         float32[T, W]; keys are the kv_heads * head_dim columns from k_offset on, values those from v_offset on
    pages       uint8[P, kv_heads, head_bytes], written
    table       int32[S, max_pages]
    rows_slot   int32[T], slot of each row
    positions   int32[T], position of each row in its sequence; its page must be in the table

    Rows are stored in order: of two rows for one place the later stays.  Raises `KernelInputError`.
    """
    require_array("qkv", qkv, np.float32, (ANY, ANY))
    kv.check(pages, written=True)
    for name, offset in (("k_offset", k_offset), ("v_offset", v_offset)):
        room = qkv.shape[1] - kv.kv_heads * kv.head_dim
        require(name, 0 <= offset <= room, "must leave room for the heads in a row of qkv")
    check_rows(qkv.shape[0], table, rows_slot, positions)
    entries = table[rows_slot, positions // PAGE_TOKENS]
    require_indices("table", entries, pages.shape[0])
    _append(frozen(qkv), k_offset, v_offset, kv.compiled(pages), frozen(entries), frozen(positions))


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
def _append(qkv: F32, k_offset: int, v_offset: int, pages: Pages, entries: I32, positions: I32) -> None:
    values, step = qkv.reshape(-1), qkv.shape[1]
    levels = np.empty(pages.width, np.int8)
    for t in range(entries.size):
        for head in range(pages.kv_heads):
            k = t * step + k_offset + head * pages.head_dim
            v = t * step + v_offset + head * pages.head_dim
            store_head(values, k, v, pages, entries[t], head, positions[t] % PAGE_TOKENS, levels)


@inlined
def head_address(pages: Pages, page: int, head: int) -> int:
    """Where one head of a page begins."""
    return pages.address + (page * pages.kv_heads + head) * pages.head_bytes


@inner
def upcoming(pages: Pages, ids: I32, head: int, n: int, last: int, part: int) -> Any:
    """What will be read of page n, as bytes to prefetch: keys (part 0) or values (1) of a head.

    Beyond the last page: the values behind the keys, the next head's keys behind the values.
    """
    if n > last:
        n, head, part = min(n - last - 1, last), head + part, 1 - part
    return bytes_at(head_address(pages, ids[n], head) + part * pages.value_bytes)


@by_type
def _store(x: Any, k: Any, v: Any, pages: Any, at: Any, place: Any, levels: Any) -> Any:  # noqa: ARG001  # by name
    """Into the head of a page that begins at an address."""
    if pages.types[-1].dtype == types.int8:
        return lambda x, k, v, pages, at, place, levels: _store_levels(x, k, v, pages, at, place, levels)  # noqa: PLW0108
    return lambda x, k, v, pages, at, place, levels: _store_floats(x, k, v, pages, at, place)  # noqa: ARG005


@inlined
def store_head(x: F32, k: int, v: int, pages: Pages, page: int, head: int, place: int, levels: I8) -> None:
    """The key x[k : k + head_dim] and the value x[v : v + head_dim] into a place; levels int8[W] is scratch."""
    _store(x, k, v, pages, head_address(pages, page, head), place, levels)


@inner
def _store_floats(x: F32, k: int, v: int, pages: Pages, at: int, place: int) -> None:
    width = pages.width
    keys, values = like_at(at, pages.like), like_at(at + pages.value_bytes, pages.like)
    for d in range(pages.head_dim):
        keys[16 * d + place] = page_of_float(pages.like, x[k + d])
        values[width * place + d] = page_of_float(pages.like, x[v + d])
    for d in range(pages.head_dim, width):
        keys[16 * d + place] = page_of_float(pages.like, _ZERO)
        values[width * place + d] = page_of_float(pages.like, _ZERO)


@inner
def _store_levels(x: F32, k: int, v: int, pages: Pages, at: int, place: int, levels: I8) -> None:
    dim, width = pages.head_dim, pages.width
    keys, values, scales = int8s_at(at), int8s_at(at + pages.value_bytes), floats_at(at + 2 * pages.value_bytes)
    scales[place], _ = quantise_head(x, k, dim, width, levels, 0)
    for d in range(width):
        keys[16 * (d - d % 4) + 4 * place + d % 4] = levels[d] + 127
    scales[16 + place], _ = quantise_head(x, v, dim, width, levels, 0)
    for d in range(width):
        values[16 * (d - d % 16) + 16 * (place - place % 4) + 4 * (d % 16) + place % 4] = levels[d]


@inner
def quantise_head(x: F32, at: int, dim: int, width: int, q: I8, place: int) -> tuple[np.float32, np.int32]:
    """Levels of the head x[at : at + dim] to q[place : place + width]; their scale and their sum.

    The padding is zero.  A head that is not finite gets zeros and the scale NaN, so that the fault shows.
    """
    bits = zeros_i32()
    for d in range(0, dim, 16):
        bits = maximum(bits, bits_of(absolute(load_head(x, at + d, dim - d))))
    largest = largest_lane(bits)
    finite = largest < _INFINITY
    top = max(float_of_bits(largest), _SMALLEST) if finite else _ONE
    factor = splat_f32(_TOP / top if finite else _ZERO)
    total = zeros_i32()
    for d in range(0, width, 16):
        level = round_to_i32(load_head(x, at + d, dim - d) * factor) if finite else zeros_i32()
        total = total + level
        store_low_bytes(q, place + d, level)
    return (top / _TOP if finite else np.float32(np.nan)), sum_lanes(total)


@inner
def load_head(x: F32, at: int, left: int) -> F32x16:
    """x[at : at + 16], of which only `left` elements are the head's: the others are +0."""
    return load_f32(x, at) if left >= 16 else load_first(x, at, max(0, left))
