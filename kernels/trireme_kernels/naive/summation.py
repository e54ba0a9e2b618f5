"""Twin of `summation.py` and `exponential.py`."""

import numpy as np

from trireme_kernels.arrays import F32, U16


def lane_sum(terms: F32) -> F32:
    """Sum over the last axis: 16 lanes in ascending order from +0, then the tree 8, 4, 2, 1."""
    n = terms.shape[-1]
    padded = np.zeros((*terms.shape[:-1], -(-n // 16) * 16), np.float32)
    padded[..., :n] = terms
    lanes = np.zeros((*terms.shape[:-1], 16), np.float32)
    for k in range(0, n, 16):
        lanes = lanes + padded[..., k : k + 16]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    total: F32 = lanes[..., 0]
    return total


def exp_nonpositive(x: F32) -> F32:
    """exp(x) for x <= 0 by the same float32 operations as the kernel; the power of two by `ldexp`."""
    f = np.float32
    near_zero = np.maximum(x, f(-88.0))  # below -87 the result is 0 anyway
    k = (near_zero * f(1.44269504) + f(12582912.0)) - f(12582912.0)
    r = (near_zero - k * f(0.693359375)) - k * f(-2.12194440e-4)
    q = np.full_like(x, 0.0013814578)
    for coefficient in (0.008368727, 0.04166839, 0.16666521, 0.49999994):
        q = q * r + f(coefficient)
    scaled = np.ldexp(((q * r) * r + r) + f(1.0), np.nan_to_num(k).astype(np.int32))
    return np.where(x < f(-87.0), f(0.0), scaled).astype(np.float32)


def widen_bfloat(bits: U16) -> F32:
    """Bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
