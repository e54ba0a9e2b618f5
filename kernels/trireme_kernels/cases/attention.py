"""Cases of rotary embedding, keys and values in pages, and attention over them."""

import itertools

import numpy as np

from trireme_kernels.arrays import F32, U8
from trireme_kernels.cases.common import Case, Cases, Random, blank, floats
from trireme_kernels.kv import append_kv
from trireme_kernels.kv_format import KV_DTYPES, KvFormat
from trireme_kernels.rotary import rope_tables


def tables(_rng: Random) -> Cases:
    """Small, with an odd number of frequencies, and as long as a context."""
    for context, head_dim, theta in ((1, 2, 10000.0), (40, 6, 500000.0), (4096, 4, 1000042.0)):
        yield {"context": context, "head_dim": head_dim, "theta": theta}


def rotate(rng: Random) -> Cases:
    """All columns, a slice in the middle, no heads, no rows."""
    shapes = (
        (3, 32, 2, 16, 0),
        (4, 70, 3, 6, 20),
        (2, 8, 0, 8, 8),
        (0, 8, 1, 8, 0),
    )
    for tokens, width, heads, head_dim, offset in shapes:
        cos, sin = rope_tables(50, head_dim, 10000.0)
        positions = rng.integers(0, 50, tokens).astype(np.int32)
        shape = {"heads": heads, "head_dim": head_dim, "offset": offset}
        yield {"x": floats(rng, tokens, width), "positions": positions, "cos": cos, "sin": sin, **shape}


def filled_pages(rng: Random, kv: KvFormat, pages: int) -> U8:
    """Pages whose every place holds a key and a value."""
    found = kv.empty(pages)
    width = kv.kv_heads * kv.head_dim
    table = np.arange(pages, dtype=np.int32)[:, None]
    slots, positions = (a.astype(np.int32) for a in np.divmod(np.arange(16 * pages), 16))
    append_kv(floats(rng, 16 * pages, 2 * width), 0, width, kv, found, table, slots, positions)
    return found


def cached_rows(rng: Random, lengths: list[int], kv: KvFormat, tail: int = 1) -> Case:
    """Pages in random order for slots of these lengths; the last `tail` rows of each, in random order of slots."""
    counts = [-(-n // 16) for n in lengths]
    ids = rng.permutation(sum(counts) + 2).astype(np.int32)
    table = np.full((len(lengths), max(counts)), -1, np.int32)
    for slot, count in enumerate(counts):
        table[slot, :count], ids = ids[:count], ids[count:]
    slots = rng.permutation(len(lengths)).tolist()
    rows = [(slot, p) for slot in slots for p in range(max(0, lengths[slot] - tail), lengths[slot])]
    return {
        "pages": filled_pages(rng, kv, sum(counts) + 2),
        "table": table,
        "rows_slot": np.array([slot for slot, _ in rows], np.int32),
        "positions": np.array([p for _, p in rows], np.int32),
    }


def append(rng: Random) -> Cases:
    """First and last places of a page; values that overflow, underflow and tie when rounded to half; zeros; no rows."""
    shapes = (([1, 16, 17, 40], 2, 8), ([5], 1, 3), ([33, 2], 2, 64))
    for dtype, (lengths, kv_heads, head_dim) in itertools.product(KV_DTYPES, shapes):
        kv, width = KvFormat(kv_heads, head_dim, dtype), kv_heads * head_dim
        qkv = floats(rng, len(lengths), 5 + 2 * width, spread=3.0)
        qkv[0, 5:8] = 1e9, 1e-8, 1.00048828125  # infinity; zero; half-way between two halves
        qkv[-1, 5 + width :] = 0
        rows = cached_rows(rng, lengths, kv)
        yield {"qkv": qkv, "k_offset": 5, "v_offset": 5 + width, "kv": kv, **rows}
    for value in (np.nan, np.inf, 1e-40, 3e38):
        kv = KvFormat(1, 6, "int8")
        qkv = floats(rng, 1, 12)
        qkv[0, 3::6] = value
        yield {"qkv": qkv, "k_offset": 0, "v_offset": 6, "kv": kv, **cached_rows(rng, [3], kv)}


def attend(rng: Random) -> Cases:
    """Grouped and ungrouped heads, odd widths, one position to several blocks, prefill, part of the work, no rows."""
    shapes: tuple[tuple[list[int], int, int, int, int, Case], ...] = (
        ([1, 16, 17, 40], 4, 2, 16, 1, {}),
        ([33], 3, 3, 20, 1, {}),
        ([2, 64], 6, 1, 7, 1, {}),
        ([20, 3], 4, 4, 32, 1, {"part": 1, "parts": 3}),
        ([130, 65, 5], 8, 2, 64, 1, {}),
        ([30, 70], 5, 1, 34, 20, {}),
        ([19, 200, 1], 8, 1, 32, 9, {"part": 1, "parts": 2}),
    )
    for dtype, (lengths, heads, kv_heads, head_dim, tail, part) in itertools.product(KV_DTYPES, shapes):
        kv = KvFormat(kv_heads, head_dim, dtype)
        rows = cached_rows(rng, lengths, kv, tail)
        tokens = len(rows["positions"])
        qkv = floats(rng, tokens, (heads + 2 * kv_heads) * head_dim, spread=2.0)
        yield {"qkv": qkv, "out": blank(tokens, heads * head_dim), "heads": heads, "kv": kv, **rows, **part}
        if tokens == len(lengths):
            yield {**_extreme_rows(rows, kv, qkv), "heads": heads, "kv": kv, "out": blank(tokens, heads * head_dim)}


def _extreme_rows(rows: Case, kv: KvFormat, qkv: F32) -> Case:
    """Large, tiny, zero and faulty keys, values and queries in the last places."""
    k = qkv.shape[1] - 2 * kv.kv_heads * kv.head_dim
    values = (3e4, 1e-6, 0.0, np.nan)
    qkv = qkv.copy()
    for t, value in enumerate(values[: len(qkv)]):
        qkv[t, k:] *= np.float32(value)
        qkv[t, : kv.head_dim] *= np.float32(1e3)
    pages = rows["pages"].copy()
    append_kv(qkv, k, k + kv.kv_heads * kv.head_dim, kv, pages, rows["table"], rows["rows_slot"], rows["positions"])
    return {**rows, "pages": pages, "qkv": qkv}
