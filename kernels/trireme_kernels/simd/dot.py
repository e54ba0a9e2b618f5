"""Integer products of bytes: one operation, emitted in six ways (`isa.py` says which), always with the same bits.

    dot(total, w, x):   total[l] += w[4l] * x[4l] + w[4l+1] * x[4l+1] + w[4l+2] * x[4l+2] + w[4l+3] * x[4l+3]

w is unsigned, x signed, totals are int32 and wrap around.  Exact for every w up to 127 on every CPU: `vpmaddubsw` adds
two products in 16 bits (2 * 127 * 128 < 2**15), `sdot` takes w as signed.  `ISA.any_bytes`: w may be larger.
"""

# mypy: disable-error-code="empty-body"
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from trireme_kernels.isa import ISA
from trireme_kernels.simd.emit import I8_IR, I32_IR, Emitter, op
from trireme_kernels.simd.types import I8x64, I32x16, U8x64

_I16_IR = ir.IntType(16)


def emit_dot(e: Emitter, total: Any, w: Any, x: Any, kind: str = ISA.dot) -> Any:
    """The dot product of `simd.dot` by the instructions of `kind`, as `Isa.dot` names them."""
    if kind == "generic":
        return _generic(e, total, w, x)
    bits, emit = {
        "vnni512": (512, _vnni),
        "vnni256": (256, _vnni),
        "madd512": (512, _madd),
        "madd256": (256, _madd),
        "sdot": (128, _sdot),
    }[kind]
    lanes = bits // 32
    parts = [emit(e, *_part(e, total, w, x, at, lanes)) for at in range(0, total.type.count, lanes)]
    while len(parts) > 1:
        joined = [list(range(2 * parts[0].type.count))]
        parts = [e.pick(a, joined[0], b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _part(e: Emitter, total: Any, w: Any, x: Any, at: int, lanes: int) -> tuple[Any, Any, Any]:
    """Lanes at .. at + lanes - 1 of the three vectors."""
    if lanes == total.type.count:
        return total, w, x
    quads = list(range(4 * at, 4 * (at + lanes)))
    return e.pick(total, list(range(at, at + lanes))), e.pick(w, quads), e.pick(x, quads)


def _vnni(e: Emitter, total: Any, w: Any, x: Any) -> Any:
    if llvm.llvm_version_info[0] < 22:  # before, the bytes were declared as the int32 that hold them
        w, x = e.b.bitcast(w, total.type), e.b.bitcast(x, total.type)
    return e.call(f"llvm.x86.avx512.vpdpbusd.{32 * total.type.count}", total.type, total, w, x)


def _madd(e: Emitter, total: Any, w: Any, x: Any) -> Any:
    pairs = ir.VectorType(_I16_IR, 2 * total.type.count)
    wide = total.type.count == 16
    products = e.call("llvm.x86.avx512.pmaddubs.w.512" if wide else "llvm.x86.avx2.pmadd.ub.sw", pairs, w, x)
    name = "llvm.x86.avx512.pmaddw.d.512" if wide else "llvm.x86.avx2.pmadd.wd"
    return e.b.add(total, e.call(name, total.type, products, e.constant(pairs, 1)))


def _sdot(e: Emitter, total: Any, w: Any, x: Any) -> Any:
    return e.call("llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, total, w, x)


def _generic(e: Emitter, total: Any, w: Any, x: Any) -> Any:
    """Byte by byte within the int32 lanes, with shifts that every CPU has."""
    w, x = e.b.bitcast(w, total.type), e.b.bitcast(x, total.type)
    for byte in range(4):
        unsigned = e.b.and_(e.b.lshr(w, e.constant(total.type, 8 * byte)), e.constant(total.type, 255))
        signed = e.b.ashr(e.b.shl(x, e.constant(total.type, 24 - 8 * byte)), e.constant(total.type, 24))
        total = e.b.add(total, e.b.mul(unsigned, signed))
    return total


@op(emit_dot)
def dot(total: I32x16, w: U8x64, x: I8x64) -> I32x16:
    """Lane by lane, `total` plus four products of unsigned and signed bytes."""


def _look_up(e: Emitter, low: Any, high: Any, index: Any) -> Any:
    if ISA.look_up:
        return e.call("llvm.x86.avx512.vpermi2var.qi.512", index.type, low, index, high)
    table = e.pick(low, list(range(128)), high)
    place = e.b.alloca(table.type)
    e.b.store(table, place)
    base, result = e.b.bitcast(place, I8_IR.as_pointer()), index
    for lane in range(index.type.count):
        at = e.b.and_(e.b.extract_element(index, I32_IR(lane)), I8_IR(127))
        byte = e.b.load(e.b.gep(base, [e.b.zext(at, I32_IR)]))
        result = e.b.insert_element(result, byte, I32_IR(lane))
    return result


@op(_look_up)
def look_up(low: U8x64, high: U8x64, index: U8x64) -> U8x64:
    """table[index & 127] for each byte, the table being low and high joined.  One instruction where `ISA.look_up`."""
