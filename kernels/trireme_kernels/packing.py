"""The two layouts of ternary weights: what a byte of a packed matrix means, and how to make and undo it.

A matrix w[rows, cols] with values -1, 0, 1 is padded with zeros and cut into tiles of 32 rows; a tile is a sequence of
blocks along the columns (k); a block is two vectors of 64 bytes, 16 rows each.  Both layouts share this frame:

    tile 0                                          tile 1 ...
    | block 0           | block 1           | ...   |
    | rows 0-15 | 16-31 | rows 0-15 | 16-31 |       |
    | 64 bytes  | 64 B  |

    one vector, 4 bytes a row:      row r = 0         row 1                  row 15
                                | j=0  1  2  3 |  0  1  2  3 |   ...   |  0  1  2  3 |      byte 4r + j

    "2bit", 16 columns a block                      "1.6bit", 20 columns a block

    byte 4r + j:  bits  7 6   5 4   3 2   1 0       byte 4r + j = d0 + 3 d1 + 9 d2 + 27 d3 + 81 d4  (0 .. 242)
                  field   3     2     1     0
    field f = w[row, 16b + 4f + j] + 1              digit df = w[row, 20b + 4f + j] + 1

So the same four activations x[.. + 4f] .. x[.. + 4f + 3] meet field f of every row of a vector: the shape that
four-byte dot product instructions want.  The code w + 1 (0, 1, 2) is unsigned; the sum of x is subtracted once.  Rows
interleaved by `interleave_gate_up` put 16 gate rows and 16 up rows into one tile.  Neither layout depends on the CPU;
"1.6bit" reads a fifth less memory and wants a CPU that looks up 64 bytes at once (`preferred_layout`).
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import ANY, I8, U8, require, require_array, round_up
from trireme_kernels.isa import ISA, Isa
from trireme_kernels.jit import kernel

Layout = Literal["2bit", "1.6bit"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
"""Names of the layouts."""
TILE_ROWS = 32
"""Rows of a tile, the unit in which threads share a matrix."""
SCALE_ROWS = 16
"""Rows that share one scale."""
BLOCK_BYTES = 128
"""Bytes of a block in both layouts."""
_BLOCK_COLS = {"2bit": 16, "1.6bit": 20}


def preferred_layout(isa: Isa = ISA) -> Layout:
    """The faster layout, on this CPU by default: "1.6bit" where it looks up 64 bytes at once (AVX-512 VBMI)."""
    return "1.6bit" if isa.look_up else "2bit"


def block_cols(layout: str = "2bit") -> int:
    """Columns of a block: 16 or 20.  A packed matrix and its quantised input are padded to a multiple of it."""
    require("layout", layout in get_args(Layout), f"must be '2bit' or '1.6bit', not {layout!r}")
    return _BLOCK_COLS[layout]


def packed_bytes(rows: int, cols: int, layout: str = "2bit") -> int:
    """Bytes of a packed rows x cols matrix: 4 a row and block of the padded matrix."""
    return round_up(rows, TILE_ROWS) * -(-cols // block_cols(layout)) * 4


def pack(w: I8, layout: str = "2bit") -> U8:
    """Pack w int8[rows, cols] of -1, 0, 1 into uint8[packed_bytes(rows, cols, layout)].  Padding is weight 0.

    Pieces of whole tiles (32 rows) may be packed one by one and concatenated.  Raises `KernelInputError`.
    """
    require_array("w", w, np.int8, (ANY, ANY))
    rows, cols = w.shape
    fields = block_cols(layout) // 4
    data = np.zeros(packed_bytes(rows, cols, layout), np.uint8)
    padded = w
    if rows % TILE_ROWS or cols % (4 * fields):
        padded = np.zeros((round_up(rows, TILE_ROWS), round_up(cols, 4 * fields)), np.int8)
        padded[:rows, :cols] = w
    require("w", _pack(padded, fields, 3 if fields == 5 else 4, data), "must hold -1, 0 and 1 only")
    return data


def unpack(data: U8, rows: int, cols: int, layout: str = "2bit") -> I8:
    """The inverse of `pack`: int8[rows, cols].  Raises `KernelInputError` for a wrong size or an impossible byte."""
    require("rows", rows >= 0, "must not be negative")
    require("cols", cols >= 0, "must not be negative")
    require_array("data", data, np.uint8, (packed_bytes(rows, cols, layout),))
    fields = block_cols(layout) // 4
    w = np.empty((round_up(rows, TILE_ROWS), round_up(cols, 4 * fields)), np.int8)
    rule = "must not hold a byte above 242" if fields == 5 else "must not hold the code 3"
    require("data", _unpack(data, fields, 3 if fields == 5 else 4, w), rule)
    return np.ascontiguousarray(w[:rows, :cols])


@kernel
def _pack(w: I8, fields: int, base: int, data: U8) -> bool:
    """Write sum of base**f * (w + 1) into every byte; False when a weight is none."""
    blocks = w.shape[1] // (4 * fields)
    wrong = False
    for row in range(w.shape[0]):
        tile, at = row // TILE_ROWS, row % TILE_ROWS * 4
        for block in range(blocks):
            for j in range(4):
                code = np.int32(0)
                for f in range(fields - 1, -1, -1):
                    digit = np.int32(w[row, (block * fields + f) * 4 + j]) + np.int32(1)
                    wrong = wrong or bool(digit < 0) or bool(digit > 2)
                    code = code * base + digit
                data[(tile * blocks + block) * BLOCK_BYTES + at + j] = code
    return not wrong


@kernel
def _unpack(data: U8, fields: int, base: int, w: I8) -> bool:
    """Digits of every byte minus 1; False when a byte holds a digit above 2 or has a remainder."""
    blocks = w.shape[1] // (4 * fields)
    wrong = False
    for row in range(w.shape[0]):
        tile, at = row // TILE_ROWS, row % TILE_ROWS * 4
        for block in range(blocks):
            for j in range(4):
                code = np.uint32(data[(tile * blocks + block) * BLOCK_BYTES + at + j])
                for f in range(fields):
                    digit = np.int32(code % np.uint32(base))
                    code //= np.uint32(base)
                    wrong = wrong or bool(digit > 2)
                    w[row, (block * fields + f) * 4 + j] = digit - 1
                wrong = wrong or bool(code != 0)
    return not wrong


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
