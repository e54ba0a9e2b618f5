"""Twins of the linear layer, the quantiser, the norm and the residual sum."""

import numpy as np

from trireme_kernels.arrays import F32, I8, I32
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.naive.packing import unpack
from trireme_kernels.naive.summation import lane_sum


def quantise_rows(x: F32, q: I8, scale: F32, total: I32) -> None:
    """TRAP 1 of the format: the reciprocal first, then times 127."""
    q[:] = 0
    scale[:], total[:] = np.nan, 0
    for t in np.flatnonzero(np.isfinite(x).all(axis=1)):
        top = max(np.float32(np.abs(x[t]).max(initial=0)), np.float32(1e-5))
        factor = np.float32(1) / top * np.float32(127)
        levels = np.clip(np.rint(x[t] * factor), -128, 127)
        q[t, : levels.size] = levels.astype(np.int8)
        scale[t], total[t] = np.float32(1) / factor, levels.sum(dtype=np.float64)


def ternary_linear(
    w: PackedMatrix, q: I8, scale: F32, total: I32, out: F32, begin: int = 0, end: int | None = None
) -> None:
    """The integer product of the unpacked matrix; `total` is not needed."""
    del total
    weights = unpack(w.data, w.padded_rows, w.padded_cols, w.layout).astype(np.int64)
    sums = q.astype(np.int64) @ weights.T
    factors = np.repeat(w.scales, 16) * scale[:, None]
    rows = slice(32 * begin, None if end is None else 32 * end)
    out[:, rows] = (sums.astype(np.float32) * factors)[:, rows]


def rms_norm(x: F32, gain: F32, eps: float, out: F32) -> None:
    """One step a line, each rounded to float32."""
    mean = lane_sum(x * x) / np.float32(x.shape[1])
    factor = np.float32(1) / np.sqrt(mean + np.float32(eps))
    out[:] = x * factor[:, None] * gain


def rms_norm_quantise(x: F32, gain: F32, eps: float, q: I8, scale: F32, total: I32) -> None:
    """One after the other."""
    y = np.empty_like(x)
    rms_norm(x, gain, eps, y)
    quantise_rows(y, q, scale, total)


def add_rows(x: F32, y: F32) -> None:
    """Add the first columns of y."""
    x[:] = x + y[:, : x.shape[1]]
