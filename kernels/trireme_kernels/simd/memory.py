"""Between arrays and vectors: loads, stores, prefetch, and arrays at an address.

Arrays are C-contiguous; `i` counts elements of the flattened array and nothing is checked.  No load or store needs more
alignment than its element type.
"""

# mypy: disable-error-code="empty-body"
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import types
from numba.np.arrayobj import populate_array

from trireme_kernels.arrays import F32, I8, I32, U8, U16
from trireme_kernels.jit import intrinsic
from trireme_kernels.simd.emit import I8_IR, I32_IR, Emitter, op
from trireme_kernels.simd.types import LANES, F32x16, I8x64, I32x16, U8x64, f32x16, i8x64, i32x16, u8x64

_F32, _I32, _U8 = f32x16.llvm, i32x16.llvm, u8x64.llvm
_HALVES, _BITS = ir.VectorType(ir.HalfType(), LANES), ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(I8_IR, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
A = TypeVar("A")


def _load(vector: Any, align: int) -> Callable[..., Any]:
    return lambda e, array, i: e.b.load(e.pointer(array, i, vector), align=align)


def _store(vector: Any, align: int) -> Callable[..., Any]:
    def emit(e: Emitter, array: Any, i: Any, value: Any) -> None:
        e.b.store(value, e.pointer(array, i, vector), align=align)

    return emit


@op(_load(_F32, 4))
def load_f32(array: F32, i: int) -> F32x16:
    """array[i : i + 16]."""


@op(_load(_I32, 4))
def load_i32(array: I32, i: int) -> I32x16:
    """array[i : i + 16]."""


@op(_load(_U8, 1))
def load_u8(array: U8, i: int) -> U8x64:
    """array[i : i + 64]."""


@op(_load(i8x64.llvm, 1))
def load_i8(array: I8, i: int) -> I8x64:
    """array[i : i + 64]."""


def widened_halves(e: Emitter, array: Any, i: Any) -> Any:
    """LLVM value of `load_f16`."""
    return e.b.fpext(e.b.load(e.pointer(array, i, _HALVES), align=2), _F32)


@op(widened_halves)
def load_f16(array: U16, i: int) -> F32x16:
    """array[i : i + 16] of IEEE halves' bits, widened (exact)."""


@op(lambda e, array, i: e.b.bitcast(_high_halves(e, e.b.load(e.pointer(array, i, _BITS), align=2)), _F32))
def load_bf16(array: U16, i: int) -> F32x16:
    """array[i : i + 16] of bfloat16 bits, widened (exact)."""


def _high_halves(e: Emitter, bits: Any) -> Any:
    return e.b.shl(e.b.zext(bits, _I32), e.constant(_I32, 16))


@op(_store(_F32, 4))
def store_f32(array: F32, i: int, value: F32x16) -> None:
    """array[i : i + 16] = value."""


@op(_store(_I32, 4))
def store_i32(array: I32, i: int, value: I32x16) -> None:
    """array[i : i + 16] = value."""


@op(lambda e, array, i, v: _store(_HALVES, 2)(e, array, i, e.b.fptrunc(v, _HALVES)))
def store_f16(array: U16, i: int, value: F32x16) -> None:
    """array[i : i + 16] = value as IEEE halves' bits: to nearest, ties to even, overflow to infinity."""


@op(lambda e, array, i, v: _store(_BYTES, 1)(e, array, i, e.b.trunc(v, _BYTES)))
def store_low_bytes(array: I8, i: int, value: I32x16) -> None:
    """array[i : i + 16] = the low byte of each lane."""


def _quads(e: Emitter, array: Any, i: Any, step: Any, value: Any) -> None:
    quads = e.b.bitcast(e.b.trunc(value, _BYTES), ir.VectorType(I32_IR, 4))
    for n in range(4):
        place = e.b.add(i, e.b.mul(step, step.type(n)))
        e.b.store(e.b.extract_element(quads, I32_IR(n)), e.pointer(array, place, I32_IR), align=1)


@op(_quads)
def store_quads(array: I8, i: int, step: int, value: I32x16) -> None:
    """The low bytes of lanes 4n .. 4n+3 to array[i + n * step : i + n * step + 4], for n in 0..3."""


def _first(e: Emitter, n: Any) -> Any:
    """The mask of lanes 0 .. n-1."""
    lane = ir.Constant(_I32, list(range(LANES)))
    return e.b.icmp_signed("<", lane, e.splat(e.b.trunc(n, I32_IR), _I32))


def _load_first(e: Emitter, array: Any, i: Any, n: Any) -> Any:
    arguments = e.pointer(array, i, _F32), I32_IR(4), _first(e, n), e.constant(_F32, 0.0)
    return e.call("llvm.masked.load.v16f32.p0", _F32, *arguments)


@op(_load_first)
def load_first(array: F32, i: int, n: int) -> F32x16:
    """array[i : i + n] and +0 in the other lanes, n in 0..16; nothing behind is read."""


def _load_first_bf16(e: Emitter, array: Any, i: Any, n: Any) -> Any:
    arguments = e.pointer(array, i, _BITS), I32_IR(2), _first(e, n), e.constant(_BITS, 0)
    return e.b.bitcast(_high_halves(e, e.call("llvm.masked.load.v16i16.p0", _BITS, *arguments)), _F32)


@op(_load_first_bf16)
def load_first_bf16(array: U16, i: int, n: int) -> F32x16:
    """`load_first` of bfloat16 bits, widened (exact)."""


def _store_first(e: Emitter, array: Any, i: Any, n: Any, value: Any) -> None:
    place = e.pointer(array, i, _F32)
    e.call("llvm.masked.store.v16f32.p0", ir.VoidType(), value, place, I32_IR(4), _first(e, n))


@op(_store_first)
def store_first(array: F32, i: int, n: int, value: F32x16) -> None:
    """array[i : i + n] = the first n lanes, n in 0..16; nothing behind is written."""


def _prefetch(level: int) -> Callable[..., Any]:
    def emit(e: Emitter, array: Any, i: Any) -> None:
        near = I32_IR(4 - level)
        e.call("llvm.prefetch.p0", ir.VoidType(), e.pointer(array, i, I8_IR), I32_IR(0), near, I32_IR(1))

    return emit


@op(_prefetch(1))
def prefetch(array: U8, i: int) -> None:
    """Ask for the cache line of array[i] to be read; i may lie outside of the array."""


@op(_prefetch(2))
def prefetch_l2(array: U8, i: int) -> None:
    """`prefetch` into the second-level cache: more lines can be on their way than into the first."""


@op(lambda e, array, i: e.b.bitcast(e.splat(e.b.load(e.pointer(array, i, I32_IR), align=1), _I32), i8x64.llvm))
def repeat_quad(array: I8, i: int) -> I8x64:
    """The four bytes array[i : i + 4] sixteen times."""


def _at(dtype: Any) -> Callable[[int], Any]:
    result = types.CPointer(dtype)

    def typer(_typing: Any, address: Any) -> Any:
        def lower(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(result))

        return (result(types.int64), lower) if isinstance(address, types.Integer) else None

    return intrinsic(typer)


floats_at, bytes_at, int8s_at, int32s_at = (_at(t) for t in (types.float32, types.uint8, types.int8, types.int32))
int64s_at = _at(types.int64)
"""`floats_at(address)` is the unowned array that begins there: to index, load and store, without length or slices.

It is a bare pointer, so handing it on costs nothing, where Numba would count references of an array.
"""


@intrinsic
def like_at(_typing: Any, address: Any, like: Any) -> Any:
    """The unowned array of elements as `like` has that begins at an address."""
    if not (isinstance(like, types.Array) and isinstance(address, types.Integer)):
        return None
    result = types.CPointer(like.dtype)

    def lower(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(result))

    return result(types.int64, like), lower


def _array_at(dtype: Any) -> Callable[[int, int], Any]:
    def typer(_typing: Any, address: Any, count: Any) -> Any:
        return _array_typer(dtype, address, count)

    return intrinsic(typer)


def _array_typer(dtype: Any, address: Any, count: Any) -> Any:
    result = types.Array(dtype, 1, "C")

    def lower(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        array = context.make_array(result)(context, builder)
        step = context.get_constant(types.intp, dtype.bitwidth // 8)
        data = builder.inttoptr(args[0], array.data.type)
        populate_array(array, data=data, shape=[args[1]], strides=[step], itemsize=step, meminfo=None)
        return array._getvalue()  # noqa: SLF001  # Numba's own way

    whole = isinstance(address, types.Integer) and isinstance(count, types.Integer)
    return (result(types.int64, types.intp), lower) if whole else None


float_array_at, int32_array_at = (_array_at(t) for t in (types.float32, types.int32))
"""`float_array_at(address, n)` is the one-dimensional array of n elements there, without a copy and unowned."""
