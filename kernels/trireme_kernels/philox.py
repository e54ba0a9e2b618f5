"""Counter-based random numbers: the draw of a position depends on (seed, position) and on nothing drawn before.

Philox4x64-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011), with
key = (seed, 0) and counter = (position + 1, 0, 0, 0): NumPy adds one to its counter before the first block, and

    philox_uniform(seed, position) == numpy.random.Generator(numpy.random.Philox(key=seed, counter=position)).random()

holds exactly: the upper 53 bits of the block's first word, times 2**-53.
"""

import numpy as np

from trireme_kernels.arrays import require
from trireme_kernels.jit import inner, kernel

_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_LOW, _32, _11 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(11)
_ULP = 2.0**-53


def check_draw(seed: int, position: int) -> None:
    """Check that a seed fits 64 bits and that a position fits 63."""
    require("seed", 0 <= seed < 1 << 64, "must lie in 0..2**64-1")
    require("position", 0 <= position < (1 << 63) - 1, "must lie in 0..2**63-2")


def philox_uniform(seed: int, position: int) -> float:
    """A float64 in [0, 1) for 0 <= seed < 2**64 and 0 <= position < 2**63 - 1."""
    check_draw(seed, position)
    return float(uniform(np.uint64(seed), np.uint64(position)))


@kernel
def uniform(seed: np.uint64, position: np.uint64) -> float:
    """The draw of (seed, position), inside kernels."""
    c0, c1, c2, c3 = position + np.uint64(1), np.uint64(0), np.uint64(0), np.uint64(0)
    k0, k1 = seed, np.uint64(0)
    for _ in range(10):
        high0, high1 = _multiply_high(_M0, c0), _multiply_high(_M1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, _M1 * c2, high0 ^ c3 ^ k1, _M0 * c0
        k0, k1 = k0 + _W0, k1 + _W1
    return np.float64(c0 >> _11) * _ULP


@inner
def _multiply_high(a: np.uint64, b: np.uint64) -> np.uint64:
    """The upper 64 bits of the 128-bit product."""
    a0, a1, b0, b1 = a & _LOW, a >> _32, b & _LOW, b >> _32
    middle = a1 * b0 + (a0 * b0 >> _32)
    other = a0 * b1 + (middle & _LOW)
    return a1 * b1 + (middle >> _32) + (other >> _32)
