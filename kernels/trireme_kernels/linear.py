"""Ternary matrix times int8 activations.

    out[t, n] = float32( sum over k of w[n, k] * q[t, k] )  *  float32( scales[n // 16] * scale[t] )

The sum is an exact integer, so neither the order of its terms, nor the tiles of a thread, nor the other tokens of a
batch can change a result.  Weights are stored as w + 1: the sum over k of (w + 1) * q, minus the sum of q.
"""

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, U8, frozen, require_array, require_output, work_range
from trireme_kernels.jit import kernel
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import BLOCK_COLS, TILE_ROWS
from trireme_kernels.simd import load_u32

_BLOCK_BYTES = TILE_ROWS * BLOCK_COLS // 4


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
    _linear(w.data, w.scales, frozen(q), frozen(scale), frozen(total), out, begin, end)


@kernel
def _linear(data: U8, scales: F32, q: I8, scale: F32, total: I32, out: F32, begin: int, end: int) -> None:
    """A tile stays in the cache while every token meets it, so weights are read from memory once."""
    blocks = q.shape[1] // BLOCK_COLS
    sums = np.empty(TILE_ROWS, np.int32)
    for tile in range(begin, end):
        for t in range(q.shape[0]):
            _tile_sums(data, tile * blocks * _BLOCK_BYTES, q[t], blocks, sums)
            for r in range(TILE_ROWS):
                n = tile * TILE_ROWS + r
                factor = scales[n // 16] * scale[t]
                out[t, n] = np.float32(sums[r] - total[t]) * factor


@kernel
def _tile_sums(data: U8, at: int, q: I8, blocks: int, sums: I32) -> None:
    """sums[r] = sum over k of (w[r, k] + 1) * q[k] for the 32 rows of the tile that begins at byte `at`."""
    sums[:] = 0
    for block in range(blocks):
        for r in range(TILE_ROWS):
            codes = load_u32(data, at + block * _BLOCK_BYTES + 4 * r)
            row = np.int32(0)
            for i in range(BLOCK_COLS):  # field f = i // 4 of byte j = i % 4
                code = np.int32(codes >> np.uint32(8 * (i % 4) + 2 * (i // 4)) & np.uint32(3))
                row += code * np.int32(q[block * BLOCK_COLS + i])
            sums[r] += row
