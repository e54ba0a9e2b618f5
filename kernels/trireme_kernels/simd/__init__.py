"""SIMD vectors as values inside kernels.  A kernel written with them reads like NumPy on arrays of 16 or 64 elements.

    @kernel
    def scaled_sum(x: F32, y: F32, factor: np.float32, out: F32) -> None:
        for i in range(0, x.size, 16):
            store_f32(out, i, load_f32(x, i) + load_f32(y, i) * splat_f32(factor))

`types.py` has the vectors and their operators, `memory.py` loads and stores, `lanes.py` what happens within and between
lanes, `dot.py` products of bytes and table look-up, `tile.py` register tiles.  `emit.py` is how an operation is made.
"""

import trireme_kernels.simd.operators  # noqa: F401  # registers + - * / & | ^ << >>
from trireme_kernels.simd.dot import dot, look_up
from trireme_kernels.simd.lanes import (
    absolute,
    bits_of,
    floats_of,
    fma,
    largest_lane,
    maximum,
    minimum,
    round_to_i32,
    splat_f32,
    splat_i32,
    splat_u8,
    sum_lanes,
    to_f32,
    tree_sum,
    where_less,
    zeros_f32,
    zeros_i32,
)
from trireme_kernels.simd.memory import (
    bytes_at,
    floats_at,
    halves_at,
    int8s_at,
    int32s_at,
    load_bf16,
    load_f16,
    load_f32,
    load_first,
    load_first_bf16,
    load_i8,
    load_i32,
    load_u8,
    prefetch,
    repeat_quad,
    store_f16,
    store_f32,
    store_first,
    store_i32,
    store_low_bytes,
    store_quads,
)
from trireme_kernels.simd.tile import Tile, merge, outer, scale_tile, store_tile, tile
from trireme_kernels.simd.types import LANES, VECTOR_BYTES, F32x16, I8x64, I32x16, U8x64

__all__ = [
    "LANES",
    "VECTOR_BYTES",
    "F32x16",
    "I8x64",
    "I32x16",
    "Tile",
    "U8x64",
    "absolute",
    "bits_of",
    "bytes_at",
    "dot",
    "floats_at",
    "floats_of",
    "fma",
    "halves_at",
    "int8s_at",
    "int32s_at",
    "largest_lane",
    "load_bf16",
    "load_f16",
    "load_f32",
    "load_first",
    "load_first_bf16",
    "load_i8",
    "load_i32",
    "load_u8",
    "look_up",
    "maximum",
    "merge",
    "minimum",
    "outer",
    "prefetch",
    "repeat_quad",
    "round_to_i32",
    "scale_tile",
    "splat_f32",
    "splat_i32",
    "splat_u8",
    "store_f16",
    "store_f32",
    "store_first",
    "store_i32",
    "store_low_bytes",
    "store_quads",
    "store_tile",
    "sum_lanes",
    "tile",
    "to_f32",
    "tree_sum",
    "where_less",
    "zeros_f32",
    "zeros_i32",
]
