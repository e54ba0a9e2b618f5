"""Twins of the rotary embedding, the KV cache and attention."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import F32, I32, U8
from trireme_kernels.attention_scores import HEADS
from trireme_kernels.kv_format import KvFormat
from trireme_kernels.naive.summation import exp_nonpositive, lane_sum


def rope_tables(context: int, head_dim: int, theta: float) -> tuple[F32, F32]:
    """One angle at a time."""
    cos, sin = np.empty((2, context, head_dim // 2), np.float32)
    for i in range(head_dim // 2):
        exponent = np.float32(2 * i) / np.float32(head_dim)
        frequency = np.float32(1) / np.float32(float(theta) ** float(exponent))
        for position in range(context):
            angle = np.float64(np.float32(position) * frequency)
            cos[position, i], sin[position, i] = np.cos(angle), np.sin(angle)
    return cos, sin


def rope(x: F32, heads: int, head_dim: int, positions: I32, cos: F32, sin: F32, offset: int = 0) -> None:
    """X * cos + rotate_half(x) * sin, as transformers writes it."""
    part = x[:, offset : offset + heads * head_dim].reshape(len(x), heads, head_dim)
    low, high = np.split(part, 2, axis=-1)
    c, s = np.tile(cos[positions], 2)[:, None], np.tile(sin[positions], 2)[:, None]
    turned = part * c + np.concatenate([-high, low], axis=-1) * s
    x[:, offset : offset + heads * head_dim] = turned.reshape(len(x), heads * head_dim)


def _places(kv: KvFormat, which: str, place: Any, d: npt.NDArray[np.integer[Any]]) -> Any:
    """Where element d of the key ("k") or value ("v") at a place of a page lies, in elements, by the drawing."""
    w = kv.width
    if kv.dtype != "int8":
        return 16 * d + place if which == "k" else 16 * w + w * place + d
    if which == "k":
        return d // 4 * 64 + 4 * place + d % 4
    return 16 * w + d // 16 * 256 + place // 4 * 64 + 4 * (d % 16) + place % 4


def _scale_places(kv: KvFormat, which: str, place: Any) -> Any:
    """Where the scale of an int8 key or value lies, in floats."""
    return 8 * kv.width + (0 if which == "k" else 16) + place


def _write(kv: KvFormat, pages: U8, which: str, page: int, place: int, x: F32) -> None:
    """The key or the value of each head, float32[KV, D], padded."""
    rows = np.zeros((kv.kv_heads, kv.width), np.float32)
    rows[:, : kv.head_dim] = x
    at = _places(kv, which, np.int32(place), np.arange(kv.width))
    if kv.dtype != "int8":
        with np.errstate(over="ignore"):
            pages.view(kv.dtype)[page][:, at] = rows
        return
    found, pages.view(np.float32)[page][:, _scale_places(kv, which, place)] = levels(rows)
    pages[page][:, at] = (found + (127 if which == "k" else 0)).astype(np.int16).astype(np.uint8)


def _read(kv: KvFormat, pages: U8, which: str, entries: I32, head: int, places: I32) -> tuple[F32, F32]:
    """Numbers or levels float32[n, D] and scales float32[n] at n places."""
    at = _places(kv, which, places[:, None], np.arange(kv.head_dim))
    if kv.dtype != "int8":
        return pages.view(kv.dtype)[entries[:, None], head, at].astype(np.float32), np.ones(len(entries), np.float32)
    bytes_ = pages[entries[:, None], head, at]
    found = bytes_.astype(np.float32) - 127 if which == "k" else bytes_.view(np.int8).astype(np.float32)
    return found, pages.view(np.float32)[entries, head, _scale_places(kv, which, places)]


def append_kv(
    qkv: F32,
    k_offset: int,
    v_offset: int,
    kv: KvFormat,
    pages: U8,
    table: I32,
    rows_slot: I32,
    positions: I32,
) -> None:
    """Row by row, with NumPy's own half type."""
    for row, slot, position in zip(qkv, rows_slot, positions, strict=True):
        page, place = table[slot, position // 16], position % 16
        for which, offset in (("k", k_offset), ("v", v_offset)):
            heads = row[offset : offset + kv.kv_heads * kv.head_dim].reshape(kv.kv_heads, kv.head_dim)
            _write(kv, pages, which, page, place, heads)


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
    """One query head at a time over the gathered keys and values."""
    group = heads // kv.kv_heads
    for t, head in itertools.product(range(len(qkv)), range(heads)):
        if not _mine(t, head, heads, group, rows_slot, positions, part, parts):
            continue
        visible = np.arange(positions[t] + 1)
        where = table[rows_slot[t], visible // 16], head // group, visible % 16
        (k, k_scale), (v, v_scale) = (_read(kv, pages, which, *where) for which in "kv")
        columns = slice(head * kv.head_dim, (head + 1) * kv.head_dim)
        if kv.dtype == "int8":
            out[t, columns] = _one_head_of_levels(qkv[t, columns], k, v, k_scale, v_scale)
        else:
            out[t, columns] = _one_head(qkv[t, columns], k, v)


def _mine(t: int, head: int, heads: int, group: int, slots: I32, positions: I32, part: int, parts: int) -> bool:
    """Whether a row's head lies in a part: chunks of a block of up to 8 neighbours, each where its work begins."""
    works = [0]
    blocks: list[list[int]] = []
    for n in range(len(slots)):
        if n and (slots[n], positions[n]) == (slots[n - 1], positions[n - 1] + 1) and len(blocks[-1]) < 8:
            blocks[-1].append(n)
        else:
            blocks.append([n])
    for rows in blocks:
        works.append(works[-1] + sum(int(positions[n]) + 65 for n in rows))
    block = next(b for b, rows in enumerate(blocks) if t in rows)
    per_kv_head = -(-group // HEADS)
    chunk = head // group * per_kv_head + head % group // HEADS
    chunks = heads // group * per_kv_head
    start, total = works[block] * chunks + chunk * (works[block + 1] - works[block]), works[-1] * chunks
    return total * part // parts <= start < total * (part + 1) // parts


def _one_head(q: F32, k: F32, v: F32) -> F32:
    scores = lane_sum(q * k) * (np.float32(1) / np.sqrt(np.float32(q.size)))
    weights = exp_nonpositive(scores - scores.max())
    mixed = np.zeros(q.size, np.float32)
    for weight, value in zip(weights, v, strict=True):
        mixed = mixed + weight * value
    return mixed * (np.float32(1) / lane_sum(weights))


def levels(x: F32) -> tuple[F32, F32]:
    """Rows as levels -127 .. 127, and their scales; rows that are not finite as zeros, and NaN."""
    top = np.maximum(np.abs(x).max(axis=-1), np.float32(1e-30))
    good = np.isfinite(top)
    top = np.where(good, top, np.float32(1))
    found = np.rint(np.where(good[..., None], x, np.float32(0)) * (np.float32(127) / top)[..., None])
    return found, np.where(good, top / np.float32(127), np.float32(np.nan))


def _one_head_of_levels(q: F32, k: F32, v: F32, k_scale: F32, v_scale: F32) -> F32:
    """Sums of integers in float64, where they are exact."""
    q8, q_scale = levels(q)
    factor = q_scale * (np.float32(1) / np.sqrt(np.float32(q.size)))
    sums = (k.astype(np.float64) @ q8.astype(np.float64)).astype(np.float32)
    scores = sums * k_scale * factor
    e = exp_nonpositive(scores - scores.max())
    mixed = np.zeros(q.size, np.float32)
    for first in range(0, len(e), 64):
        block = slice(first, first + 64)
        weights = np.where(e[block] > 0, e[block] * v_scale[block], np.float32(0))
        top = np.maximum(weights.max(), np.float32(1e-30))
        if not np.isfinite(top):
            mixed[:] = np.nan
            continue
        found = np.rint(weights * (np.float32(16383) / top))
        sums = (found.astype(np.float64) @ v[block].astype(np.float64)).astype(np.float32)
        mixed = mixed + sums * (top / np.float32(16383))
    return mixed * (np.float32(1) / lane_sum(e))
