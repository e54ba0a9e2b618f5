# ruff: noqa: ARG001  # the arguments of an intrinsic are types; its lowering gets the values
"""Sixteen float32 lanes as one value inside kernels (`f32x16`).

Each function becomes one or a few vector instructions; LLVM splits the vector on CPUs with shorter registers, which
changes no result.  Array arguments are C-contiguous; `i` indexes the flattened array and is not checked.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from trireme_kernels.jit import intrinsic

LANES = 16
_F32, _I32 = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_F32, LANES)


class Lanes(types.Type):  # type: ignore[misc]  # Numba has no types of its own
    """Numba type of sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="f32x16")


f32x16 = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, to: Any) -> Any:
    """Pointer to element `index` of an array, as a pointer to `to`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _shuffle(builder: Any, vector: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


@intrinsic
def zeros(_typing: Any) -> Any:
    """Sixteen times +0."""
    return f32x16(), lambda _context, _builder, _signature, _args: ir.Constant(_VECTOR, [0.0] * LANES)


@intrinsic
def load(_typing: Any, array: Any, i: Any) -> Any:
    """array[i : i + 16] of a float32 array."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR), align=4)

    return (f32x16(array, types.intp), lower) if array.dtype == types.float32 else None


@intrinsic
def load_bfloat(_typing: Any, array: Any, i: Any) -> Any:
    """array[i : i + 16] of a uint16 array of bfloat16 bits, widened (exact)."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow, wide = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(_I32, LANES)
        bits = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], narrow), align=2)
        return builder.bitcast(builder.shl(builder.zext(bits, wide), ir.Constant(wide, [16] * LANES)), _VECTOR)

    return (f32x16(array, types.intp), lower) if array.dtype == types.uint16 else None


@intrinsic
def add_product(_typing: Any, total: Any, a: Any, b: Any) -> Any:
    """Return total + a * b in every lane, the product rounded before the sum (no FMA)."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], builder.fmul(args[1], args[2]))

    return f32x16(f32x16, f32x16, f32x16), lower


@intrinsic
def add(_typing: Any, a: Any, b: Any) -> Any:
    """Return a + b in every lane."""
    return f32x16(f32x16, f32x16), lambda _context, builder, _signature, args: builder.fadd(args[0], args[1])


@intrinsic
def add_to_lane(_typing: Any, total: Any, lane: Any, x: Any) -> Any:
    """`total` with the scalar x added to one lane (0..15): the tail of a sum whose length is no multiple of 16."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        changed = builder.fadd(builder.extract_element(args[0], args[1]), args[2])
        return builder.insert_element(args[0], changed, args[1])

    return f32x16(f32x16, types.int32, types.float32), lower


@intrinsic
def tree_sum(_typing: Any, total: Any) -> Any:
    """Sum of the lanes in one fixed order: lane j + lane j+8, then j + j+4, then j + j+2, then 0 + 1."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector, half = args[0], LANES // 2
        while half:
            low = _shuffle(builder, vector, list(range(half)))
            high = _shuffle(builder, vector, list(range(half, 2 * half)))
            vector, half = builder.fadd(low, high), half // 2
        return builder.extract_element(vector, _I32(0))

    return types.float32(f32x16), lower


@intrinsic
def load_u32(_typing: Any, array: Any, i: Any) -> Any:
    """The four bytes array[i : i + 4] of a uint8 array as a uint32; memory maps need not be aligned."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], _I32), align=1)

    return (types.uint32(array, types.intp), lower) if array.dtype == types.uint8 else None
