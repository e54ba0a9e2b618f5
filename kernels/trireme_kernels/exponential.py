"""exp(x) for x <= 0 in float32, with one defined result on every CPU.

A library's exp differs between machines in the last bit, and one bit is enough to change a sampled token.
Method: x = k ln 2 + r with |r| <= ln 2 / 2; exp(r) = 1 + r + r^2 q(r); the result is scaled by 2^k through the
exponent bits.  k comes from adding 1.5 * 2^23, which rounds to the nearest integer.  ln 2 is split into a short and a
small part so that k * LN2_HIGH is exact (Cody and Waite, 1980).  q has degree 4 and was fitted for the least maximal
relative error on [-ln 2 / 2, ln 2 / 2] (3.1e-9); with rounding the relative error is below 8.3e-8.
"""

import numpy as np

from trireme_kernels.half import times_power_of_two
from trireme_kernels.jit import inner
from trireme_kernels.simd import F32x16, bits_of, floats_of, splat_f32, where_less, zeros_f32

LOWEST = np.float32(-87.0)
"""Below this the result is exactly 0 (exp(-87) = 1.6e-38 is close to the smallest normal float32)."""
LOG2_E = np.float32(1.44269504)
ROUNDER = np.float32(12582912.0)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
Q0 = np.float32(0.49999994)
Q1 = np.float32(0.16666521)
Q2 = np.float32(0.04166839)
Q3 = np.float32(0.008368727)
Q4 = np.float32(0.0013814578)
ONE = np.float32(1.0)


@inner
def exp_nonpositive(x: np.float32) -> np.float32:
    """exp(x) of a float32 x <= 0; NaN stays NaN.  Every operation rounds to float32 on its own."""
    rounded = x * LOG2_E + ROUNDER
    k = rounded - ROUNDER
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    q = (((Q4 * r + Q3) * r + Q2) * r + Q1) * r + Q0
    near = ((q * r) * r + r) + ONE
    if x < LOWEST:
        return np.float32(0.0)
    return times_power_of_two(near, rounded)  # type: ignore[no-any-return]


@inner
def exp_lanes(x: F32x16) -> F32x16:
    """`exp_nonpositive` of sixteen numbers, the same bits."""
    rounder = splat_f32(ROUNDER)
    rounded = x * splat_f32(LOG2_E) + rounder
    k = rounded - rounder
    r = (x - k * splat_f32(LN2_HIGH)) - k * splat_f32(LN2_LOW)
    q = (splat_f32(Q4) * r + splat_f32(Q3)) * r + splat_f32(Q2)
    q = (q * r + splat_f32(Q1)) * r + splat_f32(Q0)
    near = ((q * r) * r + r) + splat_f32(ONE)
    scaled = floats_of(bits_of(near) + (bits_of(rounded) << 23))
    return where_less(x, splat_f32(LOWEST), zeros_f32(), scaled)
