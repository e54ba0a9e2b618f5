"""Rotary position embedding, NeoX form: element i turns with element i + head_dim / 2.

Source: Su et al. 2021; the half-split form and the float32 angles of transformers' Llama.
"""

import math

import numpy as np

from trireme_kernels.arrays import ANY, F32, I32, frozen, require, require_array, require_indices, require_output
from trireme_kernels.jit import inner, kernel


def rope_tables(context: int, head_dim: int, theta: float) -> tuple[F32, F32]:
    """Tables cos and sin float32[context, head_dim / 2] of the angles position * theta^(-2i / head_dim).

    As in transformers the frequency and the angle are rounded to float32.  The power, the cosine and the sine are
    evaluated in float64 and rounded once, which gives the same tables on every machine.
    """
    require("context", context > 0, "must be positive")
    require("head_dim", head_dim > 0 and head_dim % 2 == 0, "must be positive and even")
    require("theta", math.isfinite(theta) and theta > 0, "must be finite and positive")
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1.0) / np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    angles = (np.arange(context, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rope(x: F32, heads: int, head_dim: int, positions: I32, cos: F32, sin: F32, offset: int = 0) -> None:
    """Rotate `heads` heads of each row in place.

    x          float32[T, W], for example the fused q, k and v of each token
    offset     first column of the heads; columns offset .. offset + heads * head_dim - 1 are rotated
    positions  int32[T], each inside the tables
    cos, sin   float32[context, head_dim / 2] of `rope_tables`
    """
    require_output("x", x, np.float32, (ANY, ANY))
    require("heads", heads >= 0, "must not be negative")
    require("head_dim", head_dim > 0 and head_dim % 2 == 0, "must be positive and even")
    require("offset", 0 <= offset <= x.shape[1] - heads * head_dim, "must leave room for the heads in a row of x")
    require_array("cos", cos, np.float32, (ANY, head_dim // 2))
    require_array("sin", sin, np.float32, cos.shape)
    require_array("positions", positions, np.int32, (x.shape[0],))
    require_indices("positions", positions, cos.shape[0])
    _rotate(x, offset, heads, frozen(positions), frozen(cos), frozen(sin))


@kernel
def _rotate(x: F32, offset: int, heads: int, positions: I32, cos: F32, sin: F32) -> None:
    half, width = cos.shape[1], x.shape[1]
    values = x.reshape(-1)
    for t in range(x.shape[0]):
        for head in range(heads):
            rotate_head(values, t * width + offset + head * 2 * half, cos, sin, positions[t])


@inner
def rotate_head(x: F32, at: int, cos: F32, sin: F32, position: int) -> None:
    """Rotate the head x[at : at + head_dim]."""
    half = cos.shape[1]
    for i in range(half):
        low, high = x[at + i], x[at + half + i]
        x[at + i] = low * cos[position, i] - high * sin[position, i]
        x[at + half + i] = high * cos[position, i] + low * sin[position, i]
