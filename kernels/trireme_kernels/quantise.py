"""int8 activations: one scale a token, exactly as the checkpoints were trained.

Source: `activation_quant` of BitNet b1.58 in transformers (`integrations/bitnet.py`).  Torch evaluates 127 / t as
the reciprocal of t times 127, both rounded to float32; dividing instead changes one activation in six.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, frozen, require_array, require_output, round_up
from trireme_kernels.half import float_of_bits, magnitude_bits
from trireme_kernels.jit import kernel
from trireme_kernels.packing import BLOCK_COLS

_ONE, _TOP = np.float32(1.0), np.float32(127.0)
SMALLEST = np.float32(1e-5)
"""The largest magnitude of a row counts as at least this."""
_INFINITY = np.int32(0x7F800000)


def quantise_rows(x: F32, q: I8, scale: F32, total: I32) -> None:
    """Quantise each row of x float32[T, K] to int8.

    q      int8[T, padded K], written: clip(round_half_even(x * s), -128, 127) with s = fl(fl(1 / absmax) * 127) and
           absmax = max(max |x|, 1e-5); the padding is zero
    scale  float32[T], written: fl(1 / s), which turns a sum of q into a sum of x
    total  int32[T], written: the sum of q

    A row that is not finite gets q = 0, total = 0 and scale = NaN, so that the fault shows in everything after it.
    """
    require_array("x", x, np.float32, (ANY, ANY))
    tokens, width = x.shape
    require_output("q", q, np.int8, (tokens, round_up(width, BLOCK_COLS)))
    require_output("scale", scale, np.float32, (tokens,))
    require_output("total", total, np.int32, (tokens,))
    _quantise(frozen(x), q, scale, total)


@kernel
def _quantise(x: F32, q: I8, scale: F32, total: I32) -> None:
    for t in range(x.shape[0]):
        top = _largest(x[t])
        if top >= _INFINITY:
            q[t] = 0
            scale[t], total[t] = np.nan, 0
            continue
        factor = _ONE / max(float_of_bits(top), SMALLEST) * _TOP
        scale[t] = _ONE / factor
        total[t] = _round_row(x[t], factor, q[t])


@kernel
def _largest(row: F32) -> np.int32:
    """Bits of the largest magnitude.  As integers their maximum may be taken in any order, and NaN comes out on top."""
    top = np.int32(0)
    for k in range(row.size):
        top = max(top, magnitude_bits(row[k]))
    return top


@kernel
def _round_row(row: F32, factor: np.float32, q: I8) -> np.int64:
    total = np.int64(0)
    for k in range(row.size):
        # |row * factor| is at most 127 and a rounding error, so only the rounding can reach 127: no clip is needed.
        value = np.int8(np.rint(row[k] * factor))
        q[k] = value
        total += value
    q[row.size :] = 0
    return total
