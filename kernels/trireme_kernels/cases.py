"""Arguments for every kernel, in shapes that are likely to break one: the tests of `registry.py` run on them.

A case is a dict of keyword arguments.  Output arrays are filled with a value that no kernel writes, so that a missing
or a stray write shows.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from trireme_kernels.arrays import F32, U8, U16, round_up
from trireme_kernels.head_first_pass import first_pass, threshold
from trireme_kernels.head_int8 import quantise_for_head
from trireme_kernels.head_weights import HEAD_KINDS, quantise_head
from trireme_kernels.isa import ISAS
from trireme_kernels.kv import append_kv
from trireme_kernels.kv_format import KV_DTYPES, KvFormat
from trireme_kernels.layer_shape import LayerShape
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import pack
from trireme_kernels.rotary import rope_tables

Case: TypeAlias = dict[str, Any]
Cases: TypeAlias = Iterator[Case]
Random: TypeAlias = np.random.Generator
UNWRITTEN = -77.0
LAYOUTS = ("2bit", "1.6bit")


SETTINGS = (
    (0.0, 0, 1.0),
    (1.0, 0, 1.0),
    (0.7, 1, 1.0),
    (1.3, 7, 1.0),
    (1.0, 0, 0.5),
    (0.8, 20, 0.9),
    (1.0, 0, 1e-9),
    (2.0, 10**6, 0.999),
    (1e-30, 3, 0.5),
)
"""Temperature, top_k, top_p."""


def floats(rng: Random, *shape: int, spread: float = 1.0) -> F32:
    """Normal float32 values."""
    return (rng.standard_normal(shape) * spread).astype(np.float32)


def blank(*shape: int) -> F32:
    """An output array that has not been written."""
    return np.full(shape, UNWRITTEN, np.float32)


def bfloats(rng: Random, *shape: int) -> U16:
    """Bits of normal bfloat16 values."""
    return (floats(rng, *shape).view(np.uint32) >> 16).astype(np.uint16)


def matrix(rng: Random, rows: int, cols: int, layout: str = "2bit") -> PackedMatrix:
    """A random packed matrix."""
    w = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
    scales = rng.uniform(0.1, 2.0, round_up(rows, 32) // 16).astype(np.float32)
    return PackedMatrix(pack(w, layout), scales, rows, cols, layout)


def isas(_rng: Random) -> Cases:
    """Every path."""
    yield from ({"isa": isa} for isa in ISAS)


def layouts(_rng: Random) -> Cases:
    """Both layouts."""
    for layout in LAYOUTS:
        yield {"layout": layout}


def packing(rng: Random) -> Cases:
    """Whole tiles, padded rows, padded columns, no rows, no columns, in both layouts."""
    for layout, (rows, cols) in itertools.product(LAYOUTS, ((32, 20), (1, 1), (33, 17), (70, 50), (0, 5), (5, 0))):
        yield {"w": rng.integers(-1, 2, (rows, cols)).astype(np.int8), "layout": layout}


def unpacking(rng: Random) -> Cases:
    """The same shapes, packed."""
    for case in packing(rng):
        rows, cols = case["w"].shape
        yield {"data": pack(**case), "rows": rows, "cols": cols, "layout": case["layout"]}


def relayouts(rng: Random) -> Cases:
    """From each layout to each, also of more rows than are unpacked at a time."""
    for old, new in itertools.product(LAYOUTS, LAYOUTS):
        yield {"matrix": matrix(rng, 70, 50, old), "layout": new}
    yield {"matrix": matrix(rng, 2100, 3), "layout": "1.6bit"}
    yield {
        "matrix": matrix(rng, 70, 50),
        "layout": "1.6bit",
        "data": np.zeros(96 * 3 * 4, np.uint8),
    }


def sizes(_rng: Random) -> Cases:
    """Shapes around the padding."""
    for rows, cols in ((0, 0), (1, 1), (32, 16), (33, 16), (32, 17), (100, 100)):
        yield from ({"rows": rows, "cols": cols, "layout": layout} for layout in LAYOUTS)


def interleave(rng: Random) -> Cases:
    """Weights, scales with more dimensions, vectors."""
    for shape in ((16, 3), (37, 5), (1, 1), (20,), (17, 2, 3)):
        yield {"gate": floats(rng, *shape), "up": floats(rng, *shape)}


def quantise(rng: Random) -> Cases:
    """Ordinary, tiny, huge, zero, half-way and faulty rows."""
    rows = [floats(rng, 5, 37), floats(rng, 2, 16, spread=1e-7), floats(rng, 2, 1, spread=1e30), blank(0, 20)]
    rows += [np.zeros((1, 20), np.float32), np.append(np.arange(-127, 127) + 0.5, 127).astype(np.float32)[None]]
    rows += [np.array([[1, np.nan, 2], [np.inf, 1, 2], [3e38, -3e38, 1e-45]], np.float32)]
    for x in rows:
        tokens = len(x)
        q = np.full((tokens, round_up(x.shape[1], 16)), 99, np.int8)
        yield {"x": x, "q": q, "scale": blank(tokens), "total": np.full(tokens, 99, np.int32)}


def linear(rng: Random) -> Cases:
    """Padded and whole shapes, no token to several, extreme activations, part of the tiles."""
    shapes: tuple[tuple[int, int, int, Case], ...] = (
        (32, 16, 1, {}),
        (1, 1, 2, {}),
        (70, 50, 3, {}),
        (64, 33, 0, {}),
        (40, 400, 1, {"begin": 1}),
        (130, 64, 5, {"begin": 1, "end": 3}),
        (33, 60, 4, {}),
        (40, 81, 6, {}),
        (64, 100, 15, {}),
        (32, 40, 136, {}),
    )
    for layout, (rows, cols, tokens, tiles) in itertools.product(LAYOUTS, shapes):
        w = matrix(rng, rows, cols, layout)
        q = rng.integers(-128, 128, (tokens, w.padded_cols)).astype(np.int8)
        q[:1] = -128
        total = q.sum(axis=1, dtype=np.int32)
        scale = rng.uniform(1e-3, 1e3, tokens).astype(np.float32)
        yield {"w": w, "q": q, "scale": scale, "total": total, "out": blank(tokens, w.padded_rows), **tiles}


def norm(rng: Random) -> Cases:
    """Widths off the 16 lanes, small and large values."""
    for tokens, width, spread in ((1, 16, 1.0), (3, 50, 1e-4), (2, 7, 1e6), (0, 16, 1.0), (2, 256, 1.0)):
        x = floats(rng, tokens, width, spread=spread)
        yield {"x": x, "gain": floats(rng, width), "eps": 1e-5, "out": blank(tokens, width)}


def norm_quantise(rng: Random) -> Cases:
    """The rows of `quantise` with gains, among them faulty ones."""
    for case in quantise(rng):
        yield {**case, "gain": floats(rng, case["x"].shape[1]), "eps": 1e-5}


def residual(rng: Random) -> Cases:
    """With and without padding in y."""
    for tokens, width, padded in ((1, 16, 16), (3, 50, 64), (0, 4, 32)):
        yield {"x": floats(rng, tokens, width), "y": floats(rng, tokens, padded)}


def gate(rng: Random) -> Cases:
    """Ordinary and large gates, zeros of both signs."""
    for tokens, width, spread in ((1, 16, 1.0), (3, 48, 30.0), (0, 16, 1.0), (2, 16, 1e4)):
        gate_up = floats(rng, tokens, 2 * width, spread=spread)
        gate_up[:, 3:5] = 0.0, -0.0
        yield {"gate_up": gate_up, "out": blank(tokens, width)}


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


def lookup(rng: Random) -> Cases:
    """The first and the last row, repeated ids, no ids."""
    for ids in ([0, 9, 9, 4], [], [7]):
        yield {"table": bfloats(rng, 10, 33), "ids": np.array(ids, np.int32), "out": blank(len(ids), 33)}


def logits(rng: Random) -> Cases:
    """Vocabularies and widths off the unit, part of the rows, no tokens."""
    shapes: tuple[tuple[int, int, int, Case], ...] = (
        (1, 64, 32, {}),
        (3, 45, 21, {}),
        (2, 100, 16, {"begin": 1, "end": 3}),
        (2, 70, 5, {"begin": 2}),
        (0, 32, 16, {}),
    )
    for tokens, vocabulary, width, part in shapes:
        table = bfloats(rng, vocabulary, width)
        yield {"x": floats(rng, tokens, width), "table": table, "out": blank(tokens, vocabulary), **part}


def heads(rng: Random) -> Cases:
    """Both kinds; vocabularies and widths off the unit; a row of zeros, tiny and large rows."""
    for kind, (vocabulary, width) in itertools.product(HEAD_KINDS, ((1, 1), (40, 70), (33, 128))):
        table = bfloats(rng, vocabulary, width)
        table[-1] = 0
        table[0, 0] = 0x7F00  # 1.7e38
        table[vocabulary // 2, :] = 0x0001
        yield {"table": table, "kind": kind, "seed": vocabulary}


def head_rows(rng: Random) -> Cases:
    """Rows as for the quantiser: ordinary, zero, faulty."""
    for vocabulary, width in ((3, 70), (5, 64)):
        head = quantise_head(bfloats(rng, vocabulary, width))
        x = floats(rng, 4, width)
        x[1], x[2, 5] = 0, np.nan
        yield {"x": x, "head": head}


def _head_cases(rng: Random) -> Iterator[Case]:
    shapes = ((1, 64, 128), (3, 45, 21), (6, 100, 64), (0, 40, 16), (2, 1, 3), (1, 1000, 256), (9, 33, 40))
    for tokens, vocabulary, width in shapes:
        head = quantise_head(bfloats(rng, vocabulary, width), "int8+4bit", seed=tokens)
        x = floats(rng, tokens, width)
        x[1:2, 0] = 30.0  # one large activation, as models have
        x[2:, -1] = np.inf
        yield {"x": quantise_for_head(x, head), "head": head}


def int8_logits(rng: Random) -> Cases:
    """All rows, part of them."""
    for case in _head_cases(rng):
        part = {"begin": 1, "end": case["head"].tiles} if case["head"].vocabulary > 99 else {}
        yield {**case, "out": blank(len(case["x"].scale), case["head"].vocabulary), **part}


def first_passes(rng: Random) -> Cases:
    """The same."""
    for case in int8_logits(rng):
        tokens, tiles = len(case.pop("out")), case["head"].tiles
        yield {**case, "sums": np.full((tokens, 32 * tiles), 99, np.int32), "tops": blank(tokens, tiles)}


def thresholds(rng: Random) -> Cases:
    """One, some, all and more than there are; ties."""
    for keep, (tokens, tiles) in itertools.product((1, 3, 7, 8), ((2, 7), (1, 9), (0, 8))):
        yield {"tops": np.round(floats(rng, tokens, tiles) * 3), "keep": keep}


def rescores(rng: Random) -> Cases:
    """After a first pass; one threshold keeps everything, one nothing."""
    for case in int8_logits(rng):
        tokens, tiles = len(case["out"]), case["head"].tiles
        sums, tops = np.zeros((tokens, 32 * tiles), np.int32), blank(tokens, tiles)
        first_pass(case["x"], case["head"], sums, tops)
        for least in (threshold(tops, 1), threshold(tops, 9), np.full(tokens, np.inf, np.float32)):
            yield {**case, "sums": sums, "least": least}


def largest(rng: Random) -> Cases:
    """One, some, more than there are tiles."""
    for case, keep in itertools.product(_head_cases(rng), (1, 3, 50)):
        yield {**case, "keep": keep, "out": blank(len(case["x"].scale), case["head"].vocabulary)}


def draw(rng: Random) -> Cases:
    """Seeds and positions of every size."""
    for seed in (0, 1, 1 << 63, (1 << 64) - 1, int(rng.integers(1 << 62))):
        for position in (0, 1, 4095, (1 << 62) + 5):
            yield {"seed": seed, "position": position}


def _logit_rows(rng: Random) -> Iterator[F32]:
    yield floats(rng, 300, spread=3.0)
    yield floats(rng, 1000, spread=0.01)
    yield np.round(floats(rng, 200) * 2)  # many ties
    yield np.zeros(50, np.float32)
    yield np.array([0.0, -0.0, -0.0, 0.0, -1.0], np.float32)
    yield np.array([1e38, -3e38, 3e38, 3e38], np.float32)
    yield np.array([5.0], np.float32)
    yield floats(rng, 500, spread=40.0)  # most masses are 0


def sampling(rng: Random) -> Cases:
    """Every mixture of settings over peaked, flat, tied and extreme logits."""
    for row in _logit_rows(rng):
        for (temperature, top_k, top_p), position in itertools.product(SETTINGS, range(4)):
            settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            yield {"logits": row, **settings, "seed": int(rng.integers(1 << 62)), "position": position}


@dataclass(frozen=True, eq=False, slots=True)
class RandomLayer:
    """Weights of a layer, as `layer_program.Layer` wants them."""

    attention_norm: F32
    attention_sub_norm: F32 | None
    ffn_norm: F32
    ffn_sub_norm: F32 | None
    qkv: PackedMatrix
    output: PackedMatrix
    gate_up: PackedMatrix
    down: PackedMatrix


def layer(rng: Random, shape: LayerShape, layout: str = "2bit", *, sub_norms: bool = True) -> RandomLayer:
    """A random layer."""
    matrices = {name: matrix(rng, *sizes, layout) for name, sizes in shape.matrices().items()}
    gains = {name: floats(rng, width) for name, width in shape.norms().items()}
    fields: dict[str, Any] = matrices | {n: g if sub_norms or "sub" not in n else None for n, g in gains.items()}
    return RandomLayer(**fields)


def layer_runs(rng: Random) -> Cases:
    """Both layouts and activations, with and without sub-norms, one row, several sequences, a prefill, threads."""
    relu2, silu = LayerShape(48, 80, 4, 2, 16, 1e-5, "relu2"), LayerShape(70, 32, 3, 3, 6, 1e-6, "silu")
    runs: tuple[tuple[LayerShape, str, bool, list[int], int], ...] = (
        (relu2, "2bit", True, [1], 1),
        (relu2, "1.6bit", True, [40, 3, 16], 1),
        (silu, "2bit", False, [33], 1),
        (silu, "1.6bit", False, [20, 5, 17, 1, 2, 3, 4, 5, 6, 7, 8], 3),
    )
    for (shape, layout, sub_norms, lengths, threads), dtype in itertools.product(runs, KV_DTYPES):
        kv = KvFormat(shape.kv_heads, shape.head_dim, dtype)
        rows = cached_rows(rng, lengths, kv)
        first = rows.pop("pages")
        cos, sin = rope_tables(64, shape.head_dim, 10000.0)
        yield {
            "shape": shape,
            "layers": [layer(rng, shape, layout, sub_norms=sub_norms) for _ in range(2)],
            "cos": cos,
            "sin": sin,
            "kv": kv,
            "pages": np.stack([first, filled_pages(rng, kv, len(first))]),
            "hidden": floats(rng, len(lengths), shape.hidden_size),
            "threads": threads,
            **rows,
        }
