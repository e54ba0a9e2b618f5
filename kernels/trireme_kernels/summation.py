"""The one order in which float32 sums are taken, wherever a result depends on it.

    element i goes to lane i % 16; every lane adds its elements in ascending order, starting from +0;
    then lane j += lane j+8 (j < 8),  j += j+4 (j < 4),  j += j+2 (j < 2),  lane 0 += lane 1.

It maps onto one AVX-512 register, two of AVX2 or four of NEON without changing a bit.  Products are rounded before
they are added.  `naive/summation.py` is the same in NumPy.
"""

import numpy as np

from trireme_kernels.arrays import F32, U16
from trireme_kernels.jit import inner
from trireme_kernels.simd import load_bf16, load_f32, load_first, load_first_bf16, prefetch_l2, tree_sum, zeros_f32


@inner
def dot(x: F32, i: int, y: F32, j: int, n: int) -> np.float32:
    """Sum of x[i+k] * y[j+k] for k in 0..n-1, in the fixed order; x and y are one-dimensional."""
    total = zeros_f32()
    whole = n - n % 16
    for k in range(0, whole, 16):
        total = total + load_f32(x, i + k) * load_f32(y, j + k)
    if whole < n:  # the lanes without an element add 0 * 0, which changes no sum that began at +0
        total = total + load_first(x, i + whole, n - whole) * load_first(y, j + whole, n - whole)
    return tree_sum(total)


@inner
def dot_bfloat(x: F32, i: int, y: U16, j: int, n: int) -> np.float32:
    """`dot` where y holds bfloat16 bits; y is read once, from memory, and asked for 8 KiB ahead."""
    total, ahead = zeros_f32(), y.view(np.uint8)
    whole, pairs = n - n % 16, n - n % 32
    for k in range(0, pairs, 32):
        prefetch_l2(ahead, 2 * (j + k) + 8192)
        total = total + load_f32(x, i + k) * load_bf16(y, j + k)
        total = total + load_f32(x, i + k + 16) * load_bf16(y, j + k + 16)
    if pairs < whole:
        total = total + load_f32(x, i + pairs) * load_bf16(y, j + pairs)
    if whole < n:
        total = total + load_first(x, i + whole, n - whole) * load_first_bf16(y, j + whole, n - whole)
    return tree_sum(total)


@inner
def lane_sum(x: F32, i: int, blocks: int) -> np.float32:
    """Sum of the 16 * blocks elements from x[i] on, in the fixed order."""
    total = zeros_f32()
    for block in range(blocks):
        total = total + load_f32(x, i + 16 * block)
    return tree_sum(total)
