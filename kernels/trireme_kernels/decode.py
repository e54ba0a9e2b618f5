"""Bytes of the 1.6-bit layout taken apart in registers, without a division.

    c = d0 + 3 d1 + 9 d2 + 27 d3 + 81 d4         r = c mod 81         c - r = 81 d4, whose low two bits are d4
    fields_of(r) = d0 + 4 d1 + 16 d2 + 64 d3     the byte that the 2-bit layout has

With unsigned wrap-around min(x, x - m) is x mod m for x < 2m, so two of them reduce x < 3m.
"""

import numpy as np

from trireme_kernels.isa import ISA
from trireme_kernels.jit import inner
from trireme_kernels.simd import U8x64, load_u8, look_up, minimum

INVERSE_81 = np.int32(2014922929)
"""81 * INVERSE_81 = 1 mod 2**32: multiplying divides a multiple of 81 exactly."""


def _table() -> np.ndarray:
    r = np.arange(128)
    fields = r % 3 + r // 3 % 3 * 4 + r // 9 % 3 * 16 + r // 27 * 64
    return np.where(r < 81, fields, 0).astype(np.uint8)


_FIELDS = _table()


@inner
def modulo_81(c: U8x64) -> U8x64:
    """C mod 81 for bytes up to 242."""
    r = minimum(c, c - 81)
    return minimum(r, r - 81)


@inner
def _fields_by_table(r: U8x64) -> U8x64:
    return look_up(load_u8(_FIELDS, 0), load_u8(_FIELDS, 64), r)


@inner
def _fields_by_arithmetic(r: U8x64) -> U8x64:
    low27 = minimum(r, r - 27)
    low27 = minimum(low27, low27 - 27)
    low9 = minimum(low27, low27 - 9)
    low9 = minimum(low9, low9 - 9)
    low3 = minimum(low9, low9 - 3)
    low3 = minimum(low3, low3 - 3)
    d1, d2, d3 = low9 - low3, low27 - low9, r - low27  # times 3, 9 and 27: 3 + 1 = 4, 2 * 9 = 18, 3 * 27 = 81, ...
    return low3 | (d1 + (d1 >> 1)) & 0x0C | (d2 + d2) & 0x30 | (d3 + d3 + d3) & 0xC0


fields_of = _fields_by_table if ISA.look_up else _fields_by_arithmetic
"""Four digits of r < 81 as 2-bit fields."""
