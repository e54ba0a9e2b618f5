"""One transformer block of a ternary model, over a micro-batch (BitNet b1.58, arXiv:2402.17764 and 2504.12285).

    x = rms_norm(h);  q, k, v = linear(x);  rope(q, k);  h += linear(sub_norm(attention(q, K, V)))
    x = rms_norm(h);  h += linear(sub_norm(act(gate(x)) * up(x)))

Each linear layer quantises its input to int8 per token. The sub-norms are there in BitNet models and absent in ternary
Llama ones. Every step is row by row, so a row's result does not depend on its batch mates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import trireme_kernels as kernels
from trireme_worker.kv_cache import KVCache
from trireme_worker.pack import LayerWeights, ModelConfig
from trireme_worker.team import Team

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """Where each token of the micro-batch stands: slot and position, int32 [T], and the rotary tables."""

    slots: NDArray[np.int32]
    positions: NDArray[np.int32]
    cos: Float
    sin: Float


def block(
    weights: LayerWeights, config: ModelConfig, hidden: Float, at: Tokens, kv: KVCache, layer: int, team: Team
) -> None:
    """Applies one layer to `hidden`, float32 [T, hidden_size], in place. `layer` counts within this stage's KV
    cache.
    """
    x = np.empty_like(hidden)
    kernels.rms_norm(hidden, weights.attention_norm, config.norm_eps, x)
    qkv = linear(weights.qkv, x, team)
    attended = _attention(qkv, config, at, kv, layer, team)
    _sub_norm(attended, weights.attention_sub_norm, config)
    kernels.add_rows(hidden, linear(weights.output, attended, team))
    kernels.rms_norm(hidden, weights.ffn_norm, config.norm_eps, x)
    gated = _gate(linear(weights.gate_up, x, team), config)
    _sub_norm(gated, weights.ffn_sub_norm, config)
    kernels.add_rows(hidden, linear(weights.down, gated, team))


def linear(matrix: kernels.PackedMatrix, x: Float, team: Team) -> Float:
    """Ternary linear layer: float32 [T, K] -> float32 [T, padded rows]; int8 activations, exact int32 sums."""
    tokens = x.shape[0]
    q = np.empty((tokens, matrix.padded_cols), np.int8)
    scale, total = np.empty(tokens, np.float32), np.empty(tokens, np.int32)
    kernels.quantise_rows(x, q, scale, total)
    out = np.empty((tokens, matrix.padded_rows), np.float32)
    team.run(matrix.tiles, lambda begin, end: kernels.ternary_linear(matrix, q, scale, total, out, begin, end))
    return out


def _attention(qkv: Float, config: ModelConfig, at: Tokens, kv: KVCache, layer: int, team: Team) -> Float:
    heads, kv_heads, dim = config.heads, config.kv_heads, config.head_dim
    k_offset, v_offset = heads * dim, (heads + kv_heads) * dim
    kernels.rope(qkv, heads + kv_heads, dim, at.positions, at.cos, at.sin)  # keys follow the queries
    k, v = kv.k[layer], kv.v[layer]
    kernels.append_kv(qkv, k_offset, v_offset, k, v, kv.table, at.slots, at.positions)
    out = np.empty((qkv.shape[0], heads * dim), np.float32)
    team.run(
        qkv.shape[0] * kv_heads,
        lambda begin, end: kernels.attention(
            qkv, heads, kv_heads, dim, k, v, kv.table, at.slots, at.positions, out, begin, end
        ),
    )
    return out


def _gate(gate_up: Float, config: ModelConfig) -> Float:
    out = np.empty((gate_up.shape[0], config.ffn_size), np.float32)
    activate = kernels.squared_relu_gate if config.activation == "relu2" else kernels.silu_gate
    activate(gate_up, out)
    return out


def _sub_norm(x: Float, gain: Float | None, config: ModelConfig) -> None:
    if gain is not None:
        kernels.rms_norm(x, gain, config.norm_eps, x)
