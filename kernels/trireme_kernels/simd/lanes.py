"""Operations on lanes: splat, conversions, minimum and maximum, selection, fused sums, sums over lanes.

Each has one result on every CPU, NaN included; where an instruction differs between CPUs it is not used.
"""

# mypy: disable-error-code="empty-body"
from typing import Any

import numpy as np
from llvmlite import ir

from trireme_kernels.simd.emit import I32_IR, Emitter, V, op
from trireme_kernels.simd.types import LANES, F32x16, I32x16, U8x64, f32x16, i32x16, u8x64

_F32, _I32, _U8 = f32x16.llvm, i32x16.llvm, u8x64.llvm


@op(lambda e, x: e.splat(x, _F32))
def splat_f32(x: np.float32) -> F32x16:
    """The same number x in every lane."""


@op(lambda e, x: e.splat(x, _I32))
def splat_i32(x: np.int32) -> I32x16:
    """The same number x in every lane."""


@op(lambda e, x: e.splat(x, _U8))
def splat_u8(x: np.uint8) -> U8x64:
    """The same number x in every lane."""


@op(lambda e: e.constant(_F32, 0.0))
def zeros_f32() -> F32x16:
    """Sixteen times +0."""


@op(lambda e: e.constant(_I32, 0))
def zeros_i32() -> I32x16:
    """Sixteen times 0."""


@op(lambda e, v: e.b.sitofp(v, _F32))
def to_f32(v: I32x16) -> F32x16:
    """The nearest float32 of each integer, ties to even."""


@op(lambda e, v: e.b.fptosi(e.call("llvm.rint.v16f32", _F32, v), _I32))
def round_to_i32(v: F32x16) -> I32x16:
    """The nearest integer of each lane, ties to even; |v| < 2**31."""


@op(lambda e, v: e.b.bitcast(v, _I32))
def bits_of(v: F32x16) -> I32x16:
    """The bits of each float."""


@op(lambda e, v: e.b.bitcast(v, _F32))
def floats_of(v: I32x16) -> F32x16:
    """The float with these bits, in each lane."""


def _extreme(which: str) -> Any:
    def emit(e: Emitter, a: Any, b: Any) -> Any:
        vector = e.signature.args[0]
        if vector.kind == "f":
            return e.b.select(e.b.fcmp_ordered({"min": "<", "max": ">"}[which], a, b), a, b)
        return e.call(f"llvm.{'u' if vector.kind == 'u' else 's'}{which}.v{vector.lanes}i{vector.bits}", a.type, a, b)

    return emit


@op(_extreme("min"))
def minimum(a: V, b: V) -> V:
    """The smaller of each pair of lanes; for floats `a if a < b else b`, so a NaN on either side gives b."""


@op(_extreme("max"))
def maximum(a: V, b: V) -> V:
    """The larger of each pair of lanes; for floats `a if a > b else b`, so a NaN on either side gives b."""


@op(lambda e, x, y, a, b: e.b.select(e.b.fcmp_ordered("<", x, y), a, b))
def where_less(x: F32x16, y: F32x16, a: F32x16, b: F32x16) -> F32x16:
    """A where x < y, else b (also where x or y is NaN)."""


@op(lambda e, v: e.call("llvm.fabs.v16f32", _F32, v))
def absolute(v: F32x16) -> F32x16:
    """Magnitudes; only the sign bit changes."""


@op(lambda e, a, b, c: e.call("llvm.fma.v16f32", _F32, a, b, c))
def fma(a: F32x16, b: F32x16, c: F32x16) -> F32x16:
    """A * b + c rounded once, exactly so on every CPU (slow where there is no such instruction)."""


def _tree(e: Emitter, v: Any) -> Any:
    half = LANES // 2
    add = e.b.fadd if e.signature.args[0].kind == "f" else e.b.add
    while half:
        v, half = add(e.pick(v, list(range(half))), e.pick(v, list(range(half, 2 * half)))), half // 2
    return e.b.extract_element(v, I32_IR(0))


@op(_tree)
def tree_sum(v: F32x16) -> np.float32:
    """Sum of the lanes in one fixed order: lane j + lane j+8, then j + j+4, then j + j+2, then 0 + 1."""


@op(_tree)
def sum_lanes(v: I32x16) -> np.int32:
    """Sum of the lanes."""


@op(lambda e, v: e.call("llvm.vector.reduce.smax.v16i32", ir.IntType(32), v))
def largest_lane(v: I32x16) -> np.int32:
    """The largest lane."""


def _largest_float(e: Emitter, v: Any) -> Any:
    half = v.type.count // 2
    while half:
        low, high = e.pick(v, list(range(half))), e.pick(v, list(range(half, 2 * half)))
        v, half = e.b.select(e.b.fcmp_ordered(">", low, high), low, high), half // 2
    return e.b.extract_element(v, I32_IR(0))


@op(_largest_float)
def largest_f32(v: F32x16) -> np.float32:
    """The largest lane of a vector without NaN."""
