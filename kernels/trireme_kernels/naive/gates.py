"""Twins of the activations: each is (gate, up) -> product, elementwise, under the name that the kernel has."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from trireme_kernels.arrays import F32
from trireme_kernels.naive.summation import exp_nonpositive

Gate: TypeAlias = Callable[[F32, F32], F32]
ACTIVATIONS: dict[str, Gate] = {}


def activation(name: str) -> Callable[[Gate], Gate]:
    """Make the function below the twin of the activation of this name."""

    def add(gate: Gate) -> Gate:
        ACTIVATIONS[name] = gate
        return gate

    return add


def gated_product(gate_up: F32, activation: str, out: F32) -> None:
    """Take gate and up apart, then the activation."""
    groups = gate_up.reshape(len(gate_up), gate_up.shape[1] // 32, 2, 16)
    gate, up = groups[:, :, 0].reshape(out.shape), groups[:, :, 1].reshape(out.shape)
    out[:] = ACTIVATIONS[activation](gate, up)


@activation("relu2")
def squared_relu(gate: F32, up: F32) -> F32:
    """relu(gate)^2 * up."""
    positive = np.maximum(gate, np.float32(0))
    return positive * positive * up


@activation("silu")
def silu(gate: F32, up: F32) -> F32:
    """Gate times its sigmoid, times up."""
    e = exp_nonpositive(-np.abs(gate))
    product: F32 = np.where(gate < 0, gate * e, gate) / (np.float32(1) + e) * up
    return product
