"""Ternary matrix times int8 activations.

    out[t, n] = float32( sum over k of w[n, k] * q[t, k] )  *  float32( scales[n // 16] * scale[t] )

The sum is an exact integer, so neither the order of its terms, nor the tiles of a thread, nor the other tokens of a
batch, nor the layout, nor the CPU can change a result.  Weights are stored as w + 1: the sum over k of (w + 1) * q, minus
the sum of q.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, frozen, require_array, require_output, work_range
from trireme_kernels.jit import kernel
from trireme_kernels.linear_tiles import GROUP, STORE, Quantised, Weights, group_place, linear_tiles
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.simd import bytes_at, floats_at


def ternary_linear(
    w: PackedMatrix, q: I8, scale: F32, total: I32, out: F32, begin: int = 0, end: int | None = None
) -> None:
    """Multiply T quantised tokens by a ternary matrix.

    q           int8[T, w.padded_cols], scale float32[T], total int32[T]: as `quantise_rows` writes them
    out         float32[T, w.padded_rows]; columns 32 * begin .. 32 * end - 1 are written, padding rows become 0
    begin, end  tiles of 32 rows to compute, all by default: threads share a matrix by disjoint ranges

    Raises `KernelInputError`.
    """
    require_array("q", q, np.int8, (ANY, w.padded_cols))
    tokens = q.shape[0]
    require_array("scale", scale, np.float32, (tokens,))
    require_array("total", total, np.int32, (tokens,))
    require_output("out", out, np.float32, (tokens, w.padded_rows))
    begin, end = work_range(begin, end, w.tiles)
    data = (w.data.ctypes.data, w.data.size, w.scales.ctypes.data, w.scales.size)
    _linear(*data, w.blocks, w.padded_cols, frozen(q), frozen(scale), frozen(total), out, begin, end)


@kernel
def _linear(
    data: int,
    size: int,
    scales: int,
    groups: int,
    blocks: int,
    cols: int,
    q: I8,
    scale: F32,
    total: I32,
    out: F32,
    begin: int,
    end: int,
) -> None:
    tokens = q.shape[0]
    grouped = np.empty(q.size, np.int8)
    for t in range(tokens):
        place, step = group_place(t, tokens, cols)
        for k in range(cols):
            grouped[place + step * (k // 4) + k % 4] = q[t, k]
    w = Weights(bytes_at(data, size), floats_at(scales, groups), blocks, cols)
    x = Quantised(tokens, grouped, scale.copy(), total.copy())
    sums = np.empty(GROUP * 32, np.int32)
    linear_tiles(w, x, out.reshape(-1), out.shape[1], STORE, begin, end, sums)
