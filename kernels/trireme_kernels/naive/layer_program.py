"""Twin of `layer_program.py`: a block written from the other twins, one step a line."""

from collections.abc import Sequence

import numpy as np

from trireme_kernels.arrays import F32, I32, U8
from trireme_kernels.kv_format import KvFormat
from trireme_kernels.layer_shape import Layer, LayerShape
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.naive import attention as naive_attention
from trireme_kernels.naive import gates as naive_gates
from trireme_kernels.naive import layers as naive_layers


def _linear(w: PackedMatrix, x: F32) -> F32:
    q = np.empty((len(x), w.padded_cols), np.int8)
    scale, total = np.empty(len(x), np.float32), np.empty(len(x), np.int32)
    naive_layers.quantise_rows(x, q, scale, total)
    out = np.empty((len(x), w.padded_rows), np.float32)
    naive_layers.ternary_linear(w, q, scale, total, out)
    return out[:, : w.rows]


def _norm(x: F32, gain: F32 | None, eps: float) -> F32:
    out = x.copy()
    if gain is not None:
        naive_layers.rms_norm(x, gain, eps, out)
    return out


def run_layers(
    shape: LayerShape,
    layers: Sequence[Layer],
    cos: F32,
    sin: F32,
    kv: KvFormat,
    pages: U8,
    hidden: F32,
    table: I32,
    rows_slot: I32,
    positions: I32,
    threads: int = 1,
) -> None:
    """One layer after the other; the number of threads changes nothing."""
    del threads
    eps = shape.norm_eps
    width, rows = shape.query_size, (table, rows_slot, positions)
    for layer, own in zip(layers, pages, strict=True):
        qkv = _linear(layer.qkv, _norm(hidden, layer.attention_norm, eps))
        naive_attention.rope(qkv, shape.heads + shape.kv_heads, shape.head_dim, positions, cos, sin)
        naive_attention.append_kv(qkv, width, width + shape.kv_heads * shape.head_dim, kv, own, *rows)
        attended = np.empty((len(hidden), width), np.float32)
        naive_attention.attention(qkv, shape.heads, kv, own, *rows, attended)
        hidden += _linear(layer.output, _norm(attended, layer.attention_sub_norm, eps))
        gate_up = _linear(layer.gate_up, _norm(hidden, layer.ffn_norm, eps))
        gated = np.empty((len(hidden), shape.ffn_size), np.float32)
        naive_gates.gated_product(gate_up, shape.activation, gated)
        hidden += _linear(layer.down, _norm(gated, layer.ffn_sub_norm, eps))
