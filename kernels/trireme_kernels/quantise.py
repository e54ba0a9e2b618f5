"""int8 activations: one scale a token, exactly as the checkpoints were trained, alone or right behind the norm.

Source: `activation_quant` of BitNet b1.58 in transformers (`integrations/bitnet.py`).  Torch evaluates 127 / t as
the reciprocal of t times 127, both rounded to float32; dividing instead changes one activation in six.

Rows are written four bytes at a time, `step` bytes apart: 4 for plain rows, 4T for a group of T rows that lie
interleaved, as `tile_sums.py` reads them.
"""

import math

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, frozen, require, require_array, require_output
from trireme_kernels.half import float_of_bits, magnitude_bits
from trireme_kernels.jit import inner, kernel
from trireme_kernels.simd import (
    F32x16,
    absolute,
    bits_of,
    largest_lane,
    load_f32,
    maximum,
    round_to_i32,
    splat_f32,
    store_low_bytes,
    store_quads,
    sum_lanes,
    zeros_i32,
)
from trireme_kernels.summation import dot

_ONE, _TOP = np.float32(1.0), np.float32(127.0)
SMALLEST = np.float32(1e-5)
"""The largest magnitude of a row counts as at least this."""
_INFINITY = np.int32(0x7F800000)
_NO_GAIN = frozen(np.empty(0, np.float32))


def quantise_rows(x: F32, q: I8, scale: F32, total: I32) -> None:
    """Quantise each row of x float32[T, K] to int8.

    q      int8[T, Kp] with Kp >= K, a multiple of 4 (`PackedMatrix.padded_cols`), written:
           clip(round_half_even(x * s), -128, 127) with s = fl(fl(1 / absmax) * 127) and
           absmax = max(max |x|, 1e-5); the padding is zero
    scale  float32[T], written: fl(1 / s), which turns a sum of q into a sum of x
    total  int32[T], written: the sum of q

    A row that is not finite gets q = 0, total = 0 and scale = NaN, so that the fault shows in everything after it.
    """
    _check(x, q, scale, total)
    _quantise(frozen(x), _NO_GAIN, False, np.float32(0.0), q, scale, total)


def rms_norm_quantise(x: F32, gain: F32, eps: float, q: I8, scale: F32, total: I32) -> None:
    """`quantise_rows` of `rms_norm(x, gain, eps)`, bit for bit, without the normalised row in memory."""
    _check(x, q, scale, total)
    require_array("gain", gain, np.float32, (x.shape[1],))
    require("eps", math.isfinite(eps) and eps >= 0, "must be finite and not negative")
    _quantise(frozen(x), frozen(gain), True, np.float32(eps), q, scale, total)


def _check(x: F32, q: I8, scale: F32, total: I32) -> None:
    require_array("x", x, np.float32, (ANY, ANY))
    tokens, width = x.shape
    require_output("q", q, np.int8, (tokens, ANY))
    padded = q.shape[1]
    require("q", padded >= width and padded % 4 == 0, f"must have a multiple of 4 columns, at least {width}")
    require_output("scale", scale, np.float32, (tokens,))
    require_output("total", total, np.int32, (tokens,))


@kernel
def _quantise(x: F32, gain: F32, normed: bool, eps: np.float32, q: I8, scale: F32, total: I32) -> None:
    width, padded = x.shape[1], q.shape[1]
    values, out = x.reshape(-1), q.reshape(-1)
    for t in range(x.shape[0]):
        scale[t], total[t] = quantise_row(values, t * width, width, gain, normed, eps, out, t * padded, 4, padded)


@inner
def quantise_row(
    x: F32, at: int, width: int, gain: F32, normed: bool, eps: np.float32, q: I8, place: int, step: int, padded: int
) -> tuple[np.float32, np.int32]:
    """Quantise x[at : at + width], normalised first if `normed`; the new scale and total.

    q[place + step * (k // 4) + k % 4] is written for k in 0..padded-1.
    """
    factor = _ONE
    if normed:
        factor = _ONE / np.sqrt(dot(x, at, x, at, width) / np.float32(width) + eps)
    top = _largest(x, at, width, gain, normed, factor)
    if top >= _INFINITY:
        for k in range(padded):
            q[place + step * (k // 4) + k % 4] = 0
        return np.float32(np.nan), np.int32(0)
    levels = _ONE / max(float_of_bits(top), SMALLEST) * _TOP
    return _ONE / levels, _round(x, at, width, gain, normed, factor, levels, q, place, step, padded)


@inner
def _block(x: F32, at: int, i: int, gain: F32, normed: bool, factor: np.float32) -> F32x16:
    y = load_f32(x, at + i)
    if normed:
        y = y * splat_f32(factor) * load_f32(gain, i)
    return y


@inner
def _element(x: F32, at: int, i: int, gain: F32, normed: bool, factor: np.float32) -> np.float32:
    return x[at + i] * factor * gain[i] if normed else x[at + i]  # type: ignore[no-any-return]


@inner
def _largest(x: F32, at: int, width: int, gain: F32, normed: bool, factor: np.float32) -> np.int32:
    """Bits of the largest magnitude.  As integers their maximum may be taken in any order, and NaN comes out on top."""
    lanes = zeros_i32()
    whole = width - width % 16
    for i in range(0, whole, 16):
        lanes = maximum(lanes, bits_of(absolute(_block(x, at, i, gain, normed, factor))))
    top = largest_lane(lanes)
    for i in range(whole, width):
        top = max(top, magnitude_bits(_element(x, at, i, gain, normed, factor)))
    return top


@inner
def _round(
    x: F32,
    at: int,
    width: int,
    gain: F32,
    normed: bool,
    factor: np.float32,
    levels: np.float32,
    q: I8,
    place: int,
    step: int,
    padded: int,
) -> np.int32:
    """Write q and return its sum.

    |y * levels| is at most 127 and a rounding error, so only the rounding can reach 127: no clip is needed.
    """
    sums = zeros_i32()
    whole = width - width % 16
    for i in range(0, whole, 16):
        value = round_to_i32(_block(x, at, i, gain, normed, factor) * splat_f32(levels))
        sums = sums + value
        if step == 4:
            store_low_bytes(q, place + i, value)
        else:
            store_quads(q, place + step * (i // 4), step, value)
    total = sum_lanes(sums)
    for i in range(whole, padded):
        level = np.int32(0)
        if i < width:
            level = np.int32(np.rint(_element(x, at, i, gain, normed, factor) * levels))
        q[place + step * (i // 4) + i % 4] = np.int8(level)
        total += level
    return np.int32(total)
