"""The gated products of the feed-forward block, on the rows that `interleave_gate_up` merged.

    gate_up[t]:  | 16 gate | 16 up | 16 gate | 16 up | ...        out[t]:  | 16 products | 16 products | ...

A tile of the packed matrix (32 rows) therefore yields 16 finished products.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, frozen, require, require_array, require_output
from trireme_kernels.exponential import exp_lanes
from trireme_kernels.jit import inner, kernel
from trireme_kernels.simd import F32x16, absolute, load_f32, splat_f32, store_f32, where_less, zeros_f32

ACTIVATIONS = {"relu2": 0, "silu": 1}
"""Number of each activation inside compiled code."""
RELU2 = ACTIVATIONS["relu2"]


def squared_relu_gate(gate_up: F32, out: F32) -> None:
    """Write out = max(gate, 0)^2 * up.  gate_up float32[T, 2 * Fp] interleaved by 16, out float32[T, Fp], Fp % 16 == 0.

    The square is rounded before the product.  Source: the relu2 activation of BitNet b1.58.
    """
    _check(gate_up, out)
    _gate(frozen(gate_up), ACTIVATIONS["relu2"], out)


def silu_gate(gate_up: F32, out: F32) -> None:
    """Write out = gate / (1 + exp(-gate)) * up.  gate_up float32[T, 2 * Fp] interleaved by 16, out float32[T, Fp].

    For a negative gate the quotient is gate * e / (1 + e) with e = exp(gate): exp never overflows.
    """
    _check(gate_up, out)
    _gate(frozen(gate_up), ACTIVATIONS["silu"], out)


def _check(gate_up: F32, out: F32) -> None:
    require_array("gate_up", gate_up, np.float32, (ANY, ANY))
    require("gate_up", gate_up.shape[1] % 32 == 0, "must have a multiple of 32 columns")
    require_output("out", out, np.float32, (gate_up.shape[0], gate_up.shape[1] // 2))


@kernel
def _gate(gate_up: F32, activation: int, out: F32) -> None:
    pairs, products = gate_up.reshape(-1), out.reshape(-1)
    for at in range(0, products.size, 16):
        gate, up = load_f32(pairs, 2 * at), load_f32(pairs, 2 * at + 16)
        store_f32(products, at, gated(activation, gate, up))


@inner
def gated(activation: int, gate: F32x16, up: F32x16) -> F32x16:
    """Sixteen gated products by the activation of this number (`ACTIVATIONS`)."""
    return squared_relu(gate, up) if activation == RELU2 else silu(gate, up)


@inner
def squared_relu(gate: F32x16, up: F32x16) -> F32x16:
    """max(gate, 0)^2 * up; NaN stays NaN."""
    positive = where_less(gate, zeros_f32(), zeros_f32(), gate)
    return positive * positive * up


@inner
def silu(gate: F32x16, up: F32x16) -> F32x16:
    """Gate times its sigmoid times up."""
    e = exp_lanes(zeros_f32() - absolute(gate))
    numerator = where_less(gate, zeros_f32(), gate * e, gate)
    return numerator / (splat_f32(np.float32(1.0)) + e) * up
