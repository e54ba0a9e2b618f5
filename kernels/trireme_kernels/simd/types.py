"""The vector types: what they are to Numba, to LLVM and to a type checker.

This is the one place where the width is decided: **a vector has 64 bytes on every CPU**, the cache line and the AVX-512
register.  LLVM cuts it into two registers of AVX2 or four of NEON; no kernel's text and no result depends on that.

    F32x16  16 float32      I32x16  16 int32      U8x64  64 uint8      I8x64  64 int8

The Python classes exist for signatures and mypy only: inside a kernel a vector is an LLVM value, and outside of kernels
there are none.  Their operators are lowered in `operators.py`.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

VECTOR_BYTES = 64
LANES = VECTOR_BYTES // 4
"""Lanes of a vector of 32-bit values."""


class F32x16:
    """Sixteen float32.  Each operation rounds on its own: nothing is contracted to an FMA."""

    def __add__(self, other: F32x16) -> F32x16: ...
    def __sub__(self, other: F32x16) -> F32x16: ...
    def __mul__(self, other: F32x16) -> F32x16: ...
    def __truediv__(self, other: F32x16) -> F32x16: ...


class I32x16:
    """Sixteen int32 that wrap around; `>>` keeps the sign.  The right side may be a plain integer."""

    def __add__(self, other: I32x16 | int) -> I32x16: ...
    def __sub__(self, other: I32x16 | int) -> I32x16: ...
    def __mul__(self, other: I32x16 | int) -> I32x16: ...
    def __and__(self, other: I32x16 | int) -> I32x16: ...
    def __or__(self, other: I32x16 | int) -> I32x16: ...
    def __xor__(self, other: I32x16 | int) -> I32x16: ...
    def __lshift__(self, other: I32x16 | int) -> I32x16: ...
    def __rshift__(self, other: I32x16 | int) -> I32x16: ...


class U8x64:
    """Sixty-four uint8 that wrap around; `>>` fills with zeros.  The right side may be a plain integer."""

    def __add__(self, other: U8x64 | int) -> U8x64: ...
    def __sub__(self, other: U8x64 | int) -> U8x64: ...
    def __and__(self, other: U8x64 | int) -> U8x64: ...
    def __or__(self, other: U8x64 | int) -> U8x64: ...
    def __xor__(self, other: U8x64 | int) -> U8x64: ...
    def __lshift__(self, other: U8x64 | int) -> U8x64: ...
    def __rshift__(self, other: U8x64 | int) -> U8x64: ...


class I8x64:
    """Sixty-four int8: the signed side of a dot product."""


class VectorType(types.Type):  # type: ignore[misc]  # Numba has no types of its own
    """A vector as Numba knows it: kind "f", "i" or "u", bits of a lane, number of lanes."""

    def __init__(self, kind: str, bits: int) -> None:
        self.kind, self.bits, self.lanes = kind, bits, VECTOR_BYTES * 8 // bits
        super().__init__(name=f"{kind}{bits}x{self.lanes}")

    @property
    def llvm(self) -> Any:
        """The LLVM vector type."""
        return ir.VectorType(ir.FloatType() if self.kind == "f" else ir.IntType(self.bits), self.lanes)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, numba_type.llvm)


f32x16, i32x16, u8x64, i8x64 = (VectorType(*k) for k in (("f", 32), ("i", 32), ("u", 8), ("i", 8)))
