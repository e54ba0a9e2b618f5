"""Kernels that do nothing but read memory, and nothing but multiply bytes: what this machine can do at best.

Made of the same vectors as all others, so they use what the CPU has. `bench` holds the other kernels against them;
`probe` tells placement what a node can do.
"""

from __future__ import annotations

import numpy as np

from trireme_kernels.arrays import I8, I32, U8
from trireme_kernels.isa import ISA
from trireme_kernels.jit import kernel
from trireme_kernels.simd import LANES, VECTOR_BYTES, load_i32, load_u8, outer, store_i32, store_tile, tile, zeros_i32

STRIPE = 4 * LANES
"""Elements of four vectors, read together so that four sums hide each other's latency."""
_VECTORS = 16 if ISA.dot.endswith("512") else 4
"""Sums of the peak's register tile: half of the 32 registers of 512 bits or of the 16 of 256 bits."""
_CELLS = 16
"""Pairs of vectors that the peak cycles through, so that no product is the same twice in a row."""
MACS_PER_STEP = _VECTORS * VECTOR_BYTES
OUT = _VECTORS * LANES
"""Elements that `dot_products` writes."""


@kernel
def read_lines(data: I32, begin: int, end: int, out: I32) -> None:
    """out[:16] = XOR of all data[i : i + 16], i = begin, begin + 16, ..  `end - begin` is a multiple of 64."""
    a, b, c, d = zeros_i32(), zeros_i32(), zeros_i32(), zeros_i32()
    for i in range(begin, end, STRIPE):
        a = a ^ load_i32(data, i)
        b = b ^ load_i32(data, i + LANES)
        c = c ^ load_i32(data, i + 2 * LANES)
        d = d ^ load_i32(data, i + 3 * LANES)
    store_i32(out, 0, a ^ b ^ c ^ d)


@kernel
def dot_products(w: U8, x: I8, steps: int, out: I32) -> None:
    """`steps` times a register tile of dot products.  w uint8[2048], x int8[1024], out int32[at least 256]."""
    total = tile(_VECTORS)
    for i in range(steps):
        cell = i & (_CELLS - 1)
        weights = load_u8(w, cell * 2 * VECTOR_BYTES), load_u8(w, cell * 2 * VECTOR_BYTES + VECTOR_BYTES)
        total = outer(total, weights, x, cell * VECTOR_BYTES)
    store_tile(out, 0, total)


def dot_inputs() -> tuple[U8, I8]:
    """Operands for `dot_products`, w and x."""
    w = (np.arange(_CELLS * 2 * VECTOR_BYTES) % 3).astype(np.uint8)
    return w, (np.arange(_CELLS * VECTOR_BYTES) % 255 - 127).astype(np.int8)
