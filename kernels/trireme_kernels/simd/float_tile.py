"""Register tiles of floats, for products of several rows of numbers with the same vectors.

    tile_f32(R * C) for R rows of scalars and C vectors        index  r * C + c: row r, vector c

As in `tile.py` the length is part of the type, so one text is compiled for each size with its loops unrolled.  A
product is rounded before it is added.
"""

# mypy: disable-error-code="empty-body"
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from trireme_kernels.arrays import F32, U16
from trireme_kernels.simd.emit import I32_IR, Emitter, typed_by
from trireme_kernels.simd.memory import widened_halves
from trireme_kernels.simd.tile import tuple_of
from trireme_kernels.simd.types import F32x16, f32x16

FloatTile = tuple[F32x16, ...]
_F32 = f32x16.llvm


def _tile(_typing: Any, n: Any) -> Any:
    if not isinstance(n, types.IntegerLiteral):
        return None
    count = n.literal_value

    def lower(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        return cgutils.pack_array(builder, [ir.Constant(_F32, [0.0] * 16)] * count)

    return types.UniTuple(f32x16, count)(n), lower


def _outer(_typing: Any, total: Any, w: Any, x: Any, i: Any, step: Any) -> Any:
    whole = isinstance(i, types.Integer) and isinstance(step, types.Integer)
    if not (tuple_of(total, f32x16) and tuple_of(w, f32x16) and whole):
        return None
    columns = w.count

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emitter(context, builder, signature)
        totals, vectors = (cgutils.unpack_tuple(builder, args[n]) for n in (0, 1))
        first = e.pointer(args[2], args[3], ir.FloatType(), 2)
        for r in range(total.count // columns):
            place = builder.gep(first, [builder.mul(args[4], args[4].type(r))])
            factor = e.splat(builder.load(place, align=4), _F32)
            for c in range(columns):
                at = r * columns + c
                totals[at] = builder.fadd(totals[at], builder.fmul(vectors[c], factor))
        return cgutils.pack_array(builder, totals)

    return total(total, w, x, types.intp, types.intp), lower


def _add(_typing: Any, a: Any, b: Any) -> Any:
    if not (tuple_of(a, f32x16) and a == b):
        return None

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, each) for each in args), strict=True)
        return cgutils.pack_array(builder, [builder.fadd(p, q) for p, q in pairs])

    return a(a, b), lower


def _scale(_typing: Any, a: Any, factor: Any) -> Any:
    if not (tuple_of(a, f32x16) and factor == types.float32):
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        by = Emitter(context, builder, signature).splat(args[1], _F32)
        return cgutils.pack_array(builder, [builder.fmul(v, by) for v in cgutils.unpack_tuple(builder, args[0])])

    return a(a, factor), lower


def _load(_typing: Any, like: Any, array: Any, i: Any) -> Any:
    if not (tuple_of(like, f32x16) and isinstance(i, types.Integer)):
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = Emitter(context, builder, signature).pointer(args[1], args[2], _F32, 1)
        loads = [builder.load(builder.gep(first, [I32_IR(n)]), align=4) for n in range(like.count)]
        return cgutils.pack_array(builder, loads)

    return like(like, array, types.intp), lower


def _store(_typing: Any, array: Any, i: Any, step: Any, total: Any) -> Any:
    if not (tuple_of(total, f32x16) and isinstance(i, types.Integer) and isinstance(step, types.Integer)):
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emitter(context, builder, signature)
        for n, vector in enumerate(cgutils.unpack_tuple(builder, args[3])):
            place = builder.add(args[1], builder.mul(args[2], args[2].type(n)))
            builder.store(vector, e.pointer(args[0], place, _F32), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, total), lower


def _load_wide(_typing: Any, array: Any, i: Any) -> Any:
    known = isinstance(array, types.Array | types.CPointer) and array.dtype in (types.float32, types.uint16)
    if not (known and isinstance(i, types.Integer)):
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emitter(context, builder, signature)
        if array.dtype == types.uint16:
            return widened_halves(e, args[0], args[1])
        return builder.load(e.pointer(args[0], args[1], _F32), align=4)

    return f32x16(array, types.intp), lower


def _item_bytes(_typing: Any, array: Any) -> Any:
    if not isinstance(array, types.Array | types.CPointer):
        return None
    size = array.dtype.bitwidth // 8
    return types.intp(array), lambda context, _builder, _signature, _args: context.get_constant(types.intp, size)


@typed_by(_item_bytes)
def item_bytes(array: F32 | U16) -> int:
    """Bytes of an element, a constant."""


@typed_by(_tile)
def tile_f32(n: int) -> FloatTile:
    """N vectors of +0; n must be a literal."""


@typed_by(_outer)
def outer_f32(total: FloatTile, w: FloatTile, x: F32, i: int, step: int) -> FloatTile:
    """total[C * r + c] + w[c] * x[i + r * step] for all r and c, C = len(w)."""


@typed_by(_add)
def add_tiles(a: FloatTile, b: FloatTile) -> FloatTile:
    """A + b, vector by vector."""


@typed_by(_scale)
def scale_tile_f32(a: FloatTile, factor: np.float32) -> FloatTile:
    """A * factor, vector by vector."""


@typed_by(_load)
def load_tile(like: FloatTile, array: F32, i: int) -> FloatTile:
    """As many vectors as `like` has, one after the other from array[i] on."""


@typed_by(_store)
def store_rows(array: F32, i: int, step: int, total: FloatTile) -> None:
    """Vector n to array[i + n * step : i + n * step + 16]."""


@typed_by(_load_wide)
def load_wide(array: F32 | U16, i: int) -> F32x16:
    """array[i : i + 16] as floats; bits of IEEE halves are widened (exact)."""
