"""The one order in which float32 sums are taken, wherever a result depends on it.

    element i goes to lane i % 16; every lane adds its elements in ascending order, starting from +0;
    then lane j += lane j+8 (j < 8),  j += j+4 (j < 4),  j += j+2 (j < 2),  lane 0 += lane 1.

It maps onto one AVX-512 register, two of AVX2 or four of NEON without changing a bit.  Products are rounded before
they are added.  `naive/summation.py` is the same in NumPy.
"""

from trireme_kernels.arrays import F32, U16
from trireme_kernels.half import float_of_bfloat
from trireme_kernels.jit import kernel
from trireme_kernels.simd import add, add_product, add_to_lane, load, load_bfloat, tree_sum, zeros


@kernel
def dot(x: F32, i: int, y: F32, j: int, n: int) -> float:
    """Sum of x[i+k] * y[j+k] for k in 0..n-1, in the fixed order; x and y are one-dimensional."""
    total = zeros()
    whole = n - n % 16
    for k in range(0, whole, 16):
        total = add_product(total, load(x, i + k), load(y, j + k))
    for k in range(n - whole):
        total = add_to_lane(total, k, x[i + whole + k] * y[j + whole + k])
    return tree_sum(total)  # type: ignore[no-any-return]


@kernel
def dot_bfloat(x: F32, i: int, y: U16, j: int, n: int) -> float:
    """`dot` where y holds bfloat16 bits."""
    total = zeros()
    whole = n - n % 16
    for k in range(0, whole, 16):
        total = add_product(total, load(x, i + k), load_bfloat(y, j + k))
    for k in range(n - whole):
        total = add_to_lane(total, k, x[i + whole + k] * float_of_bfloat(y[j + whole + k]))
    return tree_sum(total)  # type: ignore[no-any-return]


@kernel
def lane_sum(x: F32, i: int, blocks: int) -> float:
    """Sum of the 16 * blocks elements from x[i] on, in the fixed order."""
    total = zeros()
    for block in range(blocks):
        total = add(total, load(x, i + 16 * block))
    return tree_sum(total)  # type: ignore[no-any-return]
