"""Root-mean-square normalisation and the residual sum."""

import math

import numpy as np

from trireme_kernels.arrays import ANY, F32, frozen, require, require_array, require_output
from trireme_kernels.jit import kernel
from trireme_kernels.summation import dot

_ONE = np.float32(1.0)


def rms_norm(x: F32, gain: F32, eps: float, out: F32) -> None:
    """out[t] = x[t] * (1 / sqrt(mean(x[t]^2) + eps)) * gain, all in float32.

    x, out float32[T, H] (out may be x), gain float32[H].  The squares are summed in the order of `summation.py`.
    Source: Zhang and Sennrich 2019, as Llama applies it.
    """
    require_array("x", x, np.float32, (ANY, ANY))
    require_array("gain", gain, np.float32, (x.shape[1],))
    require("eps", math.isfinite(eps) and eps >= 0, "must be finite and not negative")
    require_output("out", out, np.float32, x.shape)
    _norm(frozen(x), frozen(gain), np.float32(eps), out)


@kernel
def _norm(x: F32, gain: F32, eps: np.float32, out: F32) -> None:
    width = x.shape[1]
    flat = x.reshape(-1)
    for t in range(x.shape[0]):
        mean = dot(flat, t * width, flat, t * width, width) / np.float32(width)
        factor = _ONE / np.sqrt(mean + eps)
        for i in range(width):
            out[t, i] = x[t, i] * factor * gain[i]


def add_rows(x: F32, y: F32) -> None:
    """x[t] += y[t, :H] for x float32[T, H] and y float32[T, W >= H] (a padded output of `ternary_linear`)."""
    require_output("x", x, np.float32, (ANY, ANY))
    require_array("y", y, np.float32, (x.shape[0], ANY))
    require("y", y.shape[1] >= x.shape[1], f"must have at least {x.shape[1]} columns, not {y.shape[1]}")
    _add(x, frozen(y))


@kernel
def _add(x: F32, y: F32) -> None:
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[t, i] += y[t, i]
