"""The gated products of the feed-forward block, on the rows that `interleave_gate_up` merged.

    gate_up[t]:  | 16 gate | 16 up | 16 gate | 16 up | ...        out[t]:  | 16 products | 16 products | ...

A tile of the packed matrix (32 rows) therefore yields 16 finished products.  An activation is one function of sixteen
lanes, marked with its name; kernels choose it by its number, which is its place in `ACTIVATIONS`.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from trireme_kernels.arrays import ANY, F32, frozen, require, require_array, require_output
from trireme_kernels.exponential import exp_lanes
from trireme_kernels.jit import by_type, inlined, inner, kernel
from trireme_kernels.simd import F32x16, absolute, load_f32, splat_f32, store_f32, where_less, zeros_f32

Lanes: TypeAlias = Callable[[F32x16, F32x16], F32x16]
"""(gate, up): sixteen gated products."""
ACTIVATIONS: dict[str, Lanes] = {}
"""Every activation by its name."""


def activation(name: str) -> Callable[[Lanes], Lanes]:
    """Compile the function below for use in kernels and make it the activation of this name."""

    def add(lanes: Lanes) -> Lanes:
        ACTIVATIONS[name] = inner(lanes)
        return ACTIVATIONS[name]

    return add


def gated_product(gate_up: F32, activation: str, out: F32) -> None:
    """Write out = activation(gate) * up.

    gate_up float32[T, 2 * Fp] interleaved by 16, out float32[T, Fp], Fp % 16 == 0.
    activation: one of `ACTIVATIONS`.  Raises `KernelInputError`.
    """
    require_array("gate_up", gate_up, np.float32, (ANY, ANY))
    require("gate_up", gate_up.shape[1] % 32 == 0, "must have a multiple of 32 columns")
    require("activation", activation in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}")
    require_output("out", out, np.float32, (gate_up.shape[0], gate_up.shape[1] // 2))
    _gate(frozen(gate_up), number_of(activation), out)


def number_of(name: str) -> int:
    """Number of an activation inside compiled code."""
    return list(ACTIVATIONS).index(name)


@kernel
def _gate(gate_up: F32, activation: int, out: F32) -> None:
    pairs, products = gate_up.reshape(-1), out.reshape(-1)
    for at in range(0, products.size, 16):
        gate, up = load_f32(pairs, 2 * at), load_f32(pairs, 2 * at + 16)
        store_f32(products, at, gated(activation, gate, up))


@by_type
def gated(activation: Any, gate: Any, up: Any) -> Any:  # noqa: ARG001  # Numba compares the names
    """Sixteen gated products by the activation of this number."""
    return _choice(tuple(ACTIVATIONS.values()))


def _choice(lanes: Sequence[Any]) -> Any:
    """(activation, gate, up): by the function of that number; written when it compiles, so that all are there."""
    number, last = len(lanes) - 1, lanes[-1]
    if not number:
        return lambda activation, gate, up: last(gate, up)  # noqa: ARG005
    before = inlined(_choice(lanes[:-1]))
    return lambda activation, gate, up: last(gate, up) if activation == number else before(activation, gate, up)


@activation("relu2")
def squared_relu(gate: F32x16, up: F32x16) -> F32x16:
    """max(gate, 0)^2 * up; NaN stays NaN.  The square is rounded before the product.  Source: BitNet b1.58's relu2."""
    positive = where_less(gate, zeros_f32(), zeros_f32(), gate)
    return positive * positive * up


@activation("silu")
def silu(gate: F32x16, up: F32x16) -> F32x16:
    """Gate / (1 + exp(-gate)) * up.

    For a negative gate the quotient is gate * e / (1 + e) with e = exp(gate): exp never overflows.
    """
    e = exp_lanes(zeros_f32() - absolute(gate))
    numerator = where_less(gate, zeros_f32(), gate * e, gate)
    return numerator / (splat_f32(np.float32(1.0)) + e) * up
