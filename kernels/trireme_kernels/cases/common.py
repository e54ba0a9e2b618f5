"""What all cases are made of: random arrays, and output arrays that nobody has written."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from trireme_kernels.arrays import F32, U16, round_up
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import pack

Case: TypeAlias = dict[str, Any]
Cases: TypeAlias = Iterator[Case]
Random: TypeAlias = np.random.Generator
UNWRITTEN = -77.0


def floats(rng: Random, *shape: int, spread: float = 1.0) -> F32:
    """Normal float32 values."""
    return (rng.standard_normal(shape) * spread).astype(np.float32)


def blank(*shape: int) -> F32:
    """An output array that has not been written."""
    return np.full(shape, UNWRITTEN, np.float32)


def bfloats(rng: Random, *shape: int) -> U16:
    """Bits of normal bfloat16 values."""
    return (floats(rng, *shape).view(np.uint32) >> 16).astype(np.uint16)


def matrix(rng: Random, rows: int, cols: int, layout: str = "2bit") -> PackedMatrix:
    """A random packed matrix."""
    w = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
    scales = rng.uniform(0.1, 2.0, round_up(rows, 32) // 16).astype(np.float32)
    return PackedMatrix(pack(w, layout), scales, rows, cols, layout)
