"""Twins of `packing.py`: one weight at a time, straight from the layout's drawing."""

from typing import Any

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import I8, U8


def _place(row: int, k: int, blocks: int) -> tuple[int, int]:
    """Byte and bit of weight w[row, k]."""
    tile, vector, r = row // 32, row // 16 % 2, row % 16
    block, field, j = k // 16, k // 4 % 4, k % 4
    return ((tile * blocks + block) * 2 + vector) * 64 + 4 * r + j, 2 * field


def packed_bytes(rows: int, cols: int) -> int:
    """Size of the packed matrix."""
    return -(-rows // 32) * -(-cols // 16) * 128


def pack_2bit(w: I8) -> U8:
    """Write each code where the drawing says."""
    rows, cols = w.shape
    blocks = -(-cols // 16)
    data = np.zeros(packed_bytes(rows, cols), np.uint8)
    for row in range(-(-rows // 32) * 32):
        for k in range(blocks * 16):
            byte, bit = _place(row, k, blocks)
            code = int(w[row, k]) + 1 if row < rows and k < cols else 1
            data[byte] |= code << bit
    return data


def unpack_2bit(data: U8, rows: int, cols: int) -> I8:
    """Read each code where the drawing says."""
    w = np.empty((rows, cols), np.int8)
    for row in range(rows):
        for k in range(cols):
            byte, bit = _place(row, k, -(-cols // 16))
            w[row, k] = (int(data[byte]) >> bit & 3) - 1
    return w


def interleave_gate_up(gate: npt.NDArray[Any], up: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Place row after row."""
    rows = gate.shape[0]
    out = np.zeros((2 * (-(-rows // 16) * 16), *gate.shape[1:]), gate.dtype)
    for row in range(rows):
        out[row // 16 * 32 + row % 16] = gate[row]
        out[row // 16 * 32 + 16 + row % 16] = up[row]
    return out
