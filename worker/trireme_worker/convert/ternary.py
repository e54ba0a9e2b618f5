"""From a checkpoint's projection to ternary weights and one scale that multiplies.

Numeric only: arrays in, arrays out. Sources: BitNet b1.58 (arXiv:2402.17764) for absmean; the `bitnet` integration of
transformers for the packed form, where a byte holds four rows that lie a quarter of the matrix apart:

    packed[r, c], R/4 rows         bits  7 6        5 4        3 2        1 0
                                   row   r+3R/4     r+2R/4     r+R/4      r       code = weight + 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import SCALE_ROWS, pack
from trireme_worker.pack.tensors import padded_scales

Ternary = NDArray[np.int8]
_MIN_MEAN = np.float32(1e-5)
_PACK_ROWS = 2048
"""Rows packed at a time, a multiple of a tile's 32: bounds the memory that packing needs beside the matrix."""


def unpack_quarters(packed: NDArray[np.uint8]) -> Ternary:
    """uint8 [R/4, C] -> int8 [R, C]. ValueError for a code 3."""
    if (packed & packed >> 1 & 0x55).any():
        raise ValueError("holds the code 3, which is no ternary weight")
    quarter, cols = packed.shape
    out = np.empty((4, quarter, cols), np.int8)
    for field in range(4):
        np.subtract(packed >> 2 * field & 3, 1, out=out[field], dtype=np.int8, casting="unsafe")
    return out.reshape(4 * quarter, cols)


def absmean(chunks: Callable[[], Iterable[NDArray[np.float32]]]) -> tuple[Ternary, np.float32]:
    """Ternary weights and scale of float master weights: round(clip(w / mean|w|)), as they are quantised in training.

    `chunks` gives the rows, float32 [n, C] at a time, each time it is called. The mean is taken in float64 and rounded;
    it is inverted in float32 before it multiplies, and the scale is the inverse of that, as transformers computes both.
    """
    total, count = 0.0, 0
    for chunk in chunks():
        total += float(np.abs(chunk).sum(dtype=np.float64))
        count += chunk.size
    inverse = np.float32(1.0) / max(np.float32(total / count), _MIN_MEAN)
    rows = [np.clip(np.rint(chunk * inverse), -1, 1).astype(np.int8) for chunk in chunks()]
    return np.concatenate(rows), np.float32(1.0) / inverse


def pack_matrix(weights: Ternary, scales: NDArray[np.float32], layout: str) -> PackedMatrix:
    """int8 [rows, cols] with one scale for 16 rows, float32 [rows / 16], as a packed matrix."""
    rows, cols = weights.shape
    data = np.concatenate([pack(weights[at : at + _PACK_ROWS], layout) for at in range(0, rows, _PACK_ROWS)])
    padded = np.zeros(padded_scales(rows), np.float32)
    padded[: len(scales)] = scales
    return PackedMatrix(data, padded, rows, cols, layout)


def row_scales(rows: int, scale: np.float32) -> NDArray[np.float32]:
    """One scale of a whole matrix, for each 16 of its rows."""
    return np.full(-(-rows // SCALE_ROWS), scale, np.float32)
