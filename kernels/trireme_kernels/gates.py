"""The gated products of the feed-forward block, on the rows that `interleave_gate_up` merged.

    gate_up[t]:  | 16 gate | 16 up | 16 gate | 16 up | ...        out[t]:  | 16 products | 16 products | ...

A tile of the packed matrix (32 rows) therefore yields 16 finished products.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, frozen, require, require_array, require_output
from trireme_kernels.exponential import exp_nonpositive
from trireme_kernels.jit import kernel

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def squared_relu_gate(gate_up: F32, out: F32) -> None:
    """Write out = max(gate, 0)^2 * up.  gate_up float32[T, 2 * Fp] interleaved by 16, out float32[T, Fp], Fp % 16 == 0.

    The square is rounded before the product.  Source: the relu2 activation of BitNet b1.58.
    """
    _check(gate_up, out)
    _squared_relu(frozen(gate_up), out)


def silu_gate(gate_up: F32, out: F32) -> None:
    """Write out = gate / (1 + exp(-gate)) * up.  gate_up float32[T, 2 * Fp] interleaved by 16, out float32[T, Fp].

    For a negative gate the quotient is gate * e / (1 + e) with e = exp(gate): exp never overflows.
    """
    _check(gate_up, out)
    _silu(frozen(gate_up), out)


def _check(gate_up: F32, out: F32) -> None:
    require_array("gate_up", gate_up, np.float32, (ANY, ANY))
    require("gate_up", gate_up.shape[1] % 32 == 0, "must have a multiple of 32 columns")
    require_output("out", out, np.float32, (gate_up.shape[0], gate_up.shape[1] // 2))


@kernel
def _squared_relu(gate_up: F32, out: F32) -> None:
    for t in range(out.shape[0]):
        for block in range(out.shape[1] // 16):
            for r in range(16):
                gate = gate_up[t, 32 * block + r]
                if gate < _ZERO:  # noqa: PLR1730  # max() may lose a NaN
                    gate = _ZERO
                out[t, 16 * block + r] = gate * gate * gate_up[t, 32 * block + 16 + r]


@kernel
def _silu(gate_up: F32, out: F32) -> None:
    for t in range(out.shape[0]):
        for block in range(out.shape[1] // 16):
            for r in range(16):
                gate = gate_up[t, 32 * block + r]
                e = exp_nonpositive(-abs(gate))
                numerator = gate * e if gate < _ZERO else gate
                out[t, 16 * block + r] = numerator / (_ONE + e) * gate_up[t, 32 * block + 16 + r]
