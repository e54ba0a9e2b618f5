"""Twins of `packing.py`: one weight at a time, straight from the layout's drawing."""

from typing import Any

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import I8, U8
from trireme_kernels.isa import ISA, Isa
from trireme_kernels.matrix import PackedMatrix

COLS = {"2bit": 16, "1.6bit": 20}
"""Columns of a block."""


def block_cols(layout: str = "2bit") -> int:
    """From the drawing."""
    return COLS[layout]


def preferred_layout(isa: Isa = ISA) -> str:
    """By the path's name alone."""
    return "1.6bit" if isa.name == "avx512_vbmi" else "2bit"


def _place(row: int, k: int, cols: int, layout: str) -> tuple[int, int]:
    """Byte of weight w[row, k], and what a weight counts in it: 4**f or 3**f."""
    width, base = COLS[layout], {"2bit": 4, "1.6bit": 3}[layout]
    blocks = -(-cols // width)
    tile, vector, r = row // 32, row // 16 % 2, row % 16
    block, field, j = k // width, k % width // 4, k % 4
    return ((tile * blocks + block) * 2 + vector) * 64 + 4 * r + j, base**field


def packed_bytes(rows: int, cols: int, layout: str = "2bit") -> int:
    """Size of the packed matrix."""
    return -(-rows // 32) * -(-cols // COLS[layout]) * 128


def pack(w: I8, layout: str = "2bit") -> U8:
    """Write each code where the drawing says."""
    rows, cols = w.shape
    data = np.zeros(packed_bytes(rows, cols, layout), np.uint8)
    for row in range(-(-rows // 32) * 32):
        for k in range(-(-cols // COLS[layout]) * COLS[layout]):
            byte, weight = _place(row, k, cols, layout)
            data[byte] += weight * (int(w[row, k]) + 1 if row < rows and k < cols else 1)
    return data


def unpack(data: U8, rows: int, cols: int, layout: str = "2bit") -> I8:
    """Read each code where the drawing says."""
    w = np.empty((rows, cols), np.int8)
    base = {"2bit": 4, "1.6bit": 3}[layout]
    for row in range(rows):
        for k in range(cols):
            byte, weight = _place(row, k, cols, layout)
            w[row, k] = int(data[byte]) // weight % base - 1
    return w


def relayout(matrix: PackedMatrix, layout: str, data: U8 | None = None) -> PackedMatrix:
    """Unpack and pack."""
    packed = pack(unpack(matrix.data, matrix.rows, matrix.cols, matrix.layout), layout)
    if data is not None:
        data[:] = packed
    return PackedMatrix(packed, matrix.scales, matrix.rows, matrix.cols, layout)


def interleave_gate_up(gate: npt.NDArray[Any], up: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Place row after row."""
    rows = gate.shape[0]
    out = np.zeros((2 * (-(-rows // 16) * 16), *gate.shape[1:]), gate.dtype)
    for row in range(rows):
        out[row // 16 * 32 + row % 16] = gate[row]
        out[row // 16 * 32 + 16 + row % 16] = up[row]
    return out
