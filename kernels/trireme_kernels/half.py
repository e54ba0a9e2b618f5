"""Conversions between float32 and 16-bit floats, and between float32 and its bits, for use inside kernels.

IEEE half (KV cache) and bfloat16 (embedding) live in uint16 arrays, because Numba has no arithmetic for them.
Narrowing rounds to nearest, ties to even, and overflows to infinity: LLVM's `fptrunc`, and NumPy's `astype`.
Sources: IEEE 754-2019 section 3.4 (binary16); bfloat16 = the upper half of a binary32.
"""

from typing import Any

from llvmlite import ir
from numba import types

from trireme_kernels.jit import intrinsic

_F32, _HALF, _I16, _I32 = ir.FloatType(), ir.HalfType(), ir.IntType(16), ir.IntType(32)


@intrinsic
def float_of_page(_typing: Any, value: Any) -> Any:
    """An element of a KV page, uint16 (bits of an IEEE half) or float32 -> float32 (exact)."""

    def lower(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.args[0] == types.float32:
            return args[0]
        return builder.fpext(builder.bitcast(args[0], _HALF), _F32)

    return (types.float32(value), lower) if value in (types.uint16, types.float32) else None


@intrinsic
def page_of_float(_typing: Any, pages: Any, x: Any) -> Any:
    """float32 -> an element of the array `pages`: itself in float32 pages, bits of the nearest IEEE half in uint16."""
    element: Any = getattr(pages, "dtype", None)

    def lower(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.return_type == types.float32:
            return args[1]
        return builder.bitcast(builder.fptrunc(args[1], _HALF), _I16)

    known = element in (types.uint16, types.float32) and x == types.float32
    return (element(pages, x), lower) if known else None


@intrinsic
def float_of_bfloat(_typing: Any, bits: Any) -> Any:
    """Bits of a bfloat16, uint16 -> float32 (exact)."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return (types.float32(types.uint16), lower) if bits == types.uint16 else None


@intrinsic
def magnitude_bits(_typing: Any, x: Any) -> Any:
    """Bits of |x|, int32 >= 0: ordered like |x|, with infinity above every number and NaN above infinity."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.and_(builder.bitcast(args[0], _I32), _I32(0x7FFFFFFF))

    return (types.int32(types.float32), lower) if x == types.float32 else None


@intrinsic
def float_of_bits(_typing: Any, bits: Any) -> Any:
    """The float32 with these bits (int32)."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _F32)

    return (types.float32(types.int32), lower) if bits == types.int32 else None


@intrinsic
def order_bits(_typing: Any, x: Any) -> Any:
    """An int32 that orders like the float32 x; -0 and +0 give the same.  Not for NaN."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.fadd(args[0], _F32(0.0)), _I32)  # -0 + 0 = +0
        mask = builder.lshr(builder.ashr(bits, _I32(31)), _I32(1))  # 0x7FFFFFFF for negative numbers
        return builder.xor(bits, mask)

    return (types.int32(types.float32), lower) if x == types.float32 else None


@intrinsic
def times_power_of_two(_typing: Any, x: Any, rounded: Any) -> Any:
    """Return x * 2**k in float32, where `rounded` = k + 1.5 * 2**23 holds the integer k in its low bits."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        exponent = builder.shl(builder.bitcast(args[1], _I32), _I32(23))
        return builder.bitcast(builder.add(builder.bitcast(args[0], _I32), exponent), _F32)

    floats = x == types.float32 and rounded == types.float32
    return (types.float32(types.float32, types.float32), lower) if floats else None
