"""Register tiles: tuples of vectors that stay in registers while a kernel runs along k.

    tile(2 * T) for a tile of 32 rows and T tokens        index  2t: rows 0-15 of token t      2t + 1: rows 16-31

The number of tokens is the length of the tuple and so part of its type: one text is compiled for each number of tokens,
with its loops unrolled.
"""

# mypy: disable-error-code="empty-body"
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from trireme_kernels.arrays import I8, I32
from trireme_kernels.simd.dot import emit_dot
from trireme_kernels.simd.emit import I8_IR, I32_IR, Emitter, typed_by
from trireme_kernels.simd.types import I8x64, I32x16, U8x64, VectorType, i8x64, i32x16, u8x64

Tile = tuple[I32x16, ...]


def tuple_of(found: Any, vector: VectorType) -> bool:
    """Whether a type is a tuple of these vectors."""
    return isinstance(found, types.UniTuple) and found.dtype == vector


def _tile(_typing: Any, n: Any) -> Any:
    if not isinstance(n, types.IntegerLiteral):
        return None
    count = n.literal_value

    def lower(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        return cgutils.pack_array(builder, [ir.Constant(i32x16.llvm, [0] * 16)] * count)

    return types.UniTuple(i32x16, count)(n), lower


def _outer(_typing: Any, total: Any, w: Any, x: Any, i: Any) -> Any:
    if not (tuple_of(total, i32x16) and tuple_of(w, u8x64) and isinstance(i, types.Integer)):
        return None
    rows, tokens = w.count, total.count // w.count

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emitter(context, builder, signature)
        totals, weights = (cgutils.unpack_tuple(builder, args[n]) for n in (0, 1))
        first = e.pointer(args[2], args[3], I32_IR, 2)
        for t in range(tokens):
            quad = builder.load(builder.gep(first, [I32_IR(t)]), align=1)
            activations = builder.bitcast(e.splat(quad, i32x16.llvm), i8x64.llvm)
            for r in range(rows):
                totals[t * rows + r] = emit_dot(e, totals[t * rows + r], weights[r], activations)
        return cgutils.pack_array(builder, totals)

    return total(total, w, x, types.intp), lower


def _outer_rows(_typing: Any, total: Any, w: Any, x: Any, i: Any, step: Any) -> Any:
    signed, whole = tuple_of(w, i8x64), isinstance(i, types.Integer) and isinstance(step, types.Integer)
    if not (tuple_of(total, i32x16) and (signed or tuple_of(w, u8x64)) and whole):
        return None
    columns = w.count

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emitter(context, builder, signature)
        totals, vectors = (cgutils.unpack_tuple(builder, args[n]) for n in (0, 1))
        first = e.pointer(args[2], args[3], I8_IR, 2)
        for r in range(total.count // columns):
            place = builder.gep(first, [builder.mul(args[4], args[4].type(r))])
            quad = builder.load(builder.bitcast(place, I32_IR.as_pointer()), align=1)
            repeated = builder.bitcast(e.splat(quad, i32x16.llvm), i8x64.llvm)
            for c in range(columns):
                pair = (repeated, vectors[c]) if signed else (vectors[c], repeated)
                totals[r * columns + c] = emit_dot(e, totals[r * columns + c], *pair)
        return cgutils.pack_array(builder, totals)

    return total(total, w, x, types.intp, types.intp), lower


def _merge(_typing: Any, a: Any, b: Any, shift: Any) -> Any:
    if not (tuple_of(a, i32x16) and a == b and isinstance(shift, types.IntegerLiteral)):
        return None

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        by = ir.Constant(i32x16.llvm, [shift.literal_value] * 16)
        pairs = zip(*(cgutils.unpack_tuple(builder, each) for each in args[:2]), strict=True)
        return cgutils.pack_array(builder, [builder.add(p, builder.ashr(q, by)) for p, q in pairs])

    return a(a, b, shift), lower


def _scale_tile(_typing: Any, a: Any, factor: Any) -> Any:
    if not (tuple_of(a, i32x16) and isinstance(factor, types.Integer)):
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        by = Emitter(context, builder, signature).splat(args[1], i32x16.llvm)
        return cgutils.pack_array(builder, [builder.mul(v, by) for v in cgutils.unpack_tuple(builder, args[0])])

    return a(a, types.int32), lower


def _store_tile(_typing: Any, array: Any, i: Any, total: Any) -> Any:
    if not (tuple_of(total, i32x16) and isinstance(i, types.Integer)):
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = Emitter(context, builder, signature).pointer(args[0], args[1], i32x16.llvm)
        for n, vector in enumerate(cgutils.unpack_tuple(builder, args[2])):
            builder.store(vector, builder.gep(first, [I32_IR(n)]), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, total), lower


@typed_by(_tile)
def tile(n: int) -> Tile:
    """N vectors of zeros; n must be a literal."""


@typed_by(_outer)
def outer(total: Tile, w: tuple[U8x64, ...], x: I8, i: int) -> Tile:
    """total[R * t + r] = dot(total[R * t + r], w[r], repeat_quad(x, i + 4t)) for all t and r, R = len(w)."""


@typed_by(_outer_rows)
def outer_rows(total: Tile, w: tuple[U8x64, ...] | tuple[I8x64, ...], x: I8, i: int, step: int) -> Tile:
    """total[C * r + c] = dot(total[C * r + c], w[c], repeat_quad(x, i + r * step)) for all r and c, C = len(w).

    Where w is signed, the bytes of x are the unsigned side and must lie in 0..127.
    """


@typed_by(_merge)
def merge(a: Tile, b: Tile, shift: int) -> Tile:
    """A + (b >> shift), vector by vector; shift must be a literal."""


@typed_by(_scale_tile)
def scale_tile(a: Tile, factor: np.int32) -> Tile:
    """A * factor, vector by vector, wrapping around."""


@typed_by(_store_tile)
def store_tile(array: I32, i: int, total: Tile) -> None:
    """Store all vectors of a tile one after the other from array[i] on."""
