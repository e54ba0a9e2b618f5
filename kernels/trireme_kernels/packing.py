"""The 2-bit layout of ternary weights: what a byte of a packed matrix means.  NumPy only; used when models are packed.

A matrix w[rows, cols] with values -1, 0, 1 is padded with zeros to 32 rows and 16 columns and cut into tiles of 32
rows; a tile is a sequence of blocks of 16 columns (k); a block is two vectors of 64 bytes, 16 rows each:

    tile 0                                          tile 1 ...
    | block 0           | block 1           | ...   |
    | rows 0-15 | 16-31 | rows 0-15 | 16-31 |       |
    | 64 bytes  | 64 B  |

    one vector, 4 bytes a row:      row r = 0         row 1                  row 15
                                | j=0  1  2  3 |  0  1  2  3 |   ...   |  0  1  2  3 |      byte 4r + j

    one byte 4r + j of block b:   bits  7 6   5 4   3 2   1 0
                                  field   3     2     1     0        field f = w[row, 16b + 4f + j] + 1

So the same four activations x[16b + 4f .. 16b + 4f + 3] meet field f of every row of a vector: the shape that
four-byte dot product instructions want.  The code w + 1 (0, 1, 2) is unsigned; the sum of x is subtracted once.
Code 3 never occurs.  Rows interleaved by `interleave_gate_up` put 16 gate rows and 16 up rows into one tile.
"""

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import ANY, I8, U8, require, require_array, round_up

TILE_ROWS = 32
"""Rows of a tile, the unit in which threads share a matrix."""
SCALE_ROWS = 16
"""Rows that share one scale."""
BLOCK_COLS = 16
"""Columns of a block."""


def packed_bytes(rows: int, cols: int) -> int:
    """Bytes of a packed rows x cols matrix: 2 bits for each weight of the padded matrix."""
    return round_up(rows, TILE_ROWS) * round_up(cols, BLOCK_COLS) // 4


def pack_2bit(w: I8) -> U8:
    """Pack w int8[rows, cols] with values -1, 0, 1 into uint8[packed_bytes(rows, cols)] (layout: this file's head).

    Raises `KernelInputError` for any other value.
    """
    require_array("w", w, np.int8, (ANY, ANY))
    require("w", bool(((w >= -1) & (w <= 1)).all()), "must hold -1, 0 and 1 only")
    rows, cols = w.shape
    tiles, blocks = round_up(rows, TILE_ROWS) // TILE_ROWS, round_up(cols, BLOCK_COLS) // BLOCK_COLS
    codes = np.ones((tiles * TILE_ROWS, blocks * BLOCK_COLS), np.uint8)
    codes[:rows, :cols] = w + 1
    fields = codes.reshape(tiles, 2, 16, blocks, 4, 4)  # tile, vector, row, block, field, j
    packed = fields[..., 0, :] | fields[..., 1, :] << 2 | fields[..., 2, :] << 4 | fields[..., 3, :] << 6
    return np.ascontiguousarray(packed.transpose(0, 3, 1, 2, 4)).reshape(-1)


def unpack_2bit(data: U8, rows: int, cols: int) -> I8:
    """The inverse of `pack_2bit`: int8[rows, cols].  Raises `KernelInputError` for a wrong size or a code 3."""
    require("rows", rows >= 0, "must not be negative")
    require("cols", cols >= 0, "must not be negative")
    require_array("data", data, np.uint8, (packed_bytes(rows, cols),))
    require("data", not bool((data & data >> 1 & 0x55).any()), "must not hold the code 3")
    tiles, blocks = round_up(rows, TILE_ROWS) // TILE_ROWS, round_up(cols, BLOCK_COLS) // BLOCK_COLS
    packed = data.reshape(tiles, blocks, 2, 16, 4).transpose(0, 2, 3, 1, 4)  # tile, vector, row, block, j
    fields = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=-2)
    codes = fields.reshape(tiles * TILE_ROWS, blocks * BLOCK_COLS)[:rows, :cols]
    return np.ascontiguousarray(codes).astype(np.int8) - np.int8(1)


def interleave_gate_up(gate: npt.NDArray[np.generic], up: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Merge gate[F, ...] and up[F, ...] (same shape and dtype) into [2 * Fp, ...] with Fp = F rounded up to 16.

    Rows 32i .. 32i+15 are gate rows 16i .. 16i+15 and rows 32i+16 .. 32i+31 the up rows of the same numbers; rows
    F .. Fp-1 of both are zeros.  A tile of the packed matrix then holds both halves of 16 gated products.
    """
    require("gate", gate.ndim >= 1, "must have at least one dimension")
    require("up", up.shape == gate.shape, f"must have shape {gate.shape} like gate, not {up.shape}")
    require("up", up.dtype == gate.dtype, f"must have dtype {gate.dtype} like gate, not {up.dtype}")
    rows, rest = gate.shape[0], gate.shape[1:]
    pairs = np.zeros((2, round_up(rows, SCALE_ROWS), *rest), gate.dtype)
    pairs[0, :rows], pairs[1, :rows] = gate, up
    groups = pairs.reshape(2, -1, SCALE_ROWS, *rest).swapaxes(0, 1)
    return np.ascontiguousarray(groups).reshape(2 * pairs.shape[1], *rest)
