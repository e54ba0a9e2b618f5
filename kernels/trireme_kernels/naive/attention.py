"""Twins of the rotary embedding, the KV cache and attention."""

from typing import Any

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import F32, I32, Pages
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
    """Row by row, with NumPy's own half type."""
    _, heads, _, width = k_pages.shape
    for row, slot, position in zip(qkv, rows_slot, positions, strict=True):
        page, place = table[slot, position // 16], position % 16
        for offset, pages in ((k_offset, k_pages), (v_offset, v_pages)):
            values = row[offset : offset + heads * width].reshape(heads, width)
            with np.errstate(over="ignore"):
                _numbers(pages)[page, :, place] = values


def _numbers(pages: Pages) -> npt.NDArray[Any]:
    """The pages as NumPy's own numbers."""
    return pages.view(np.float16) if pages.dtype == np.uint16 else pages


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
    """One query head at a time over the gathered keys and values."""
    group = heads // kv_heads
    for item in range(begin, len(qkv) * kv_heads if end is None else end):
        t, kv_head = divmod(item, kv_heads)
        visible = np.arange(positions[t] + 1)
        entries = table[rows_slot[t], visible // 16]
        k = _numbers(k_pages)[entries, kv_head, visible % 16].astype(np.float32)
        v = _numbers(v_pages)[entries, kv_head, visible % 16].astype(np.float32)
        for head in range(kv_head * group, (kv_head + 1) * group):
            columns = slice(head * head_dim, (head + 1) * head_dim)
            out[t, columns] = _one_head(qkv[t, columns], k, v)


def _one_head(q: F32, k: F32, v: F32) -> F32:
    scores = lane_sum(q * k) * (np.float32(1) / np.sqrt(np.float32(q.size)))
    weights = exp_nonpositive(scores - scores.max())
    mixed = np.zeros(q.size, np.float32)
    for weight, value in zip(weights, v, strict=True):
        mixed = mixed + weight * value
    return mixed * (np.float32(1) / lane_sum(weights))
