"""Ternary matrix times int8 activations.

    out[t, n] = float32( sum over k of w[n, k] * q[t, k] )  *  float32( scales[n // 16] * scale[t] )

The sum is an exact integer, so neither the order of its terms, nor the tiles of a thread, nor the other tokens of a
batch, nor the layout, nor the CPU can change a result.  Weights are stored as w + 1: the sum over k of (w + 1) * q,
minus the sum of q.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, I64, frozen, require_array, require_output, work_range
from trireme_kernels.jit import kernel
from trireme_kernels.linear_tiles import GROUP, STORE, Quantised, Weights, group_place, linear_tiles, runtime
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.simd import bytes_at, floats_at, int8s_at, int32s_at


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
    grouped, sums = np.empty(q.size, np.int8), np.empty(GROUP * 32, np.int32)
    arrays = (w.data, w.scales, grouped, scale, total, out, sums)
    addresses = np.array([array.ctypes.data for array in arrays], np.int64)
    _linear(frozen(q), addresses, w.tiles, w.blocks, begin, end)


@kernel
def _linear(q: I8, addresses: I64, tiles: int, blocks: int, begin: int, end: int) -> None:
    """The addresses are those of w.data, w.scales, memory for grouped q, scale, total, out and memory for sums.

    Unowned arrays, because they are what `layer_steps.py` computes with, too.
    """
    data, scales, grouped, scale = addresses[0], addresses[1], addresses[2], addresses[3]
    total, out, sums = addresses[4], addresses[5], addresses[6]
    tokens, cols = q.shape
    x = Quantised(tokens, int8s_at(grouped), floats_at(scale), int32s_at(total))
    for t in range(tokens):
        place, step = group_place(t, tokens, cols)
        for k in range(cols):
            x.q[place + step * (k // 4) + k % 4] = q[t, k]
    w = Weights(bytes_at(data), floats_at(scales), tiles, blocks, cols)
    linear_tiles(w, x, floats_at(out), 32 * tiles, runtime(STORE), begin, end, int32s_at(sums))
