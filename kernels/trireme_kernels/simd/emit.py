"""How a vector operation is made: a typed declaration, and a function that emits its LLVM IR.

    @op(lambda e, a, b: e.call("llvm.fma", a.type, a, b, c))
    def fma(a: F32x16, b: F32x16, c: F32x16) -> F32x16:
        "a * b + c with one rounding."

The annotations are the types that Numba sees; `e` is an `Emitter`, the other arguments are LLVM values.  Only this
package needs to know any of that.
"""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from trireme_kernels.arrays import F32, I8, I32, I64, U8, U16
from trireme_kernels.jit import intrinsic
from trireme_kernels.simd.types import F32x16, I8x64, I32x16, U8x64, VectorType, f32x16, i8x64, i32x16, u8x64

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V", F32x16, I32x16, U8x64, I8x64)
"""Any vector type, the same wherever it stands in one declaration."""

_SCALARS: dict[Any, Any] = {
    int: types.intp,
    np.int32: types.int32,
    np.uint8: types.uint8,
    np.float32: types.float32,
    F32x16: f32x16,
    I32x16: i32x16,
    U8x64: u8x64,
    I8x64: i8x64,
    type(None): types.none,
}
_ARRAYS: dict[Any, Any] = {
    F32: types.float32,
    I8: types.int8,
    U8: types.uint8,
    U16: types.uint16,
    I32: types.int32,
    I64: types.int64,
}
I32_IR, I8_IR = ir.IntType(32), ir.IntType(8)


class Emitter:
    """Builds the instructions of one operation.  `b` is llvmlite's builder."""

    def __init__(self, context: Any, builder: Any, signature: Any) -> None:
        self.context, self.b, self.signature = context, builder, signature

    def pointer(self, array: Any, index: Any, to: Any, position: int = 0) -> Any:
        """Pointer to element `index` of the array that is argument number `position`, as a pointer to `to`."""
        data, kind = array, self.signature.args[position]
        if isinstance(kind, types.Array):
            data = self.context.make_array(kind)(self.context, self.b, array).data
        return self.b.bitcast(self.b.gep(data, [index]), to.as_pointer())

    def splat(self, scalar: Any, vector: Any) -> Any:
        """A scalar in every lane of an LLVM vector type."""
        one = self.b.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32_IR(0))
        return self.pick(one, [0] * vector.count)

    def pick(self, vector: Any, lanes: list[int], other: Any = None) -> Any:
        """Chosen lanes of a vector, or of two as if joined."""
        mask = ir.Constant(ir.VectorType(I32_IR, len(lanes)), lanes)
        return self.b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined) if other is None else other, mask)

    def constant(self, vector: Any, value: Any) -> Any:
        """A vector with one value in every lane."""
        return ir.Constant(vector, [value] * vector.count)

    def call(self, name: str, result: Any, *args: Any) -> Any:
        """Call an LLVM intrinsic by its full name."""
        function_type = ir.FunctionType(result, [a.type for a in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, function_type, name), args)


def _fit(hint: Any, found: Any, same: dict[Any, Any]) -> Any:
    """The Numba type of an argument with this annotation, or None where `found` does not fit."""
    if hint in _ARRAYS:
        array = isinstance(found, types.Array) and found.layout == "C"
        fits = (array or isinstance(found, types.CPointer)) and found.dtype == _ARRAYS[hint]
        return found if fits else None
    if hint is V:
        return found if isinstance(found, VectorType) and same.setdefault(V, found) == found else None
    wanted = _SCALARS[hint]
    if isinstance(wanted, VectorType):
        return found if found == wanted else None
    whole = isinstance(wanted, types.Integer) and isinstance(found, types.Integer)
    return wanted if whole or found == wanted else None


def op(emit: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn a typed declaration into a function that kernels can call and that `emit` lowers."""

    def declare(declaration: Callable[P, R]) -> Callable[P, R]:
        hints = get_type_hints(declaration)
        result = hints.pop("return")

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = emit(Emitter(context, builder, signature), *args)
            return context.get_dummy_value() if value is None else value

        def typer(_typing: Any, *found: Any) -> Any:
            same: dict[Any, Any] = {}
            args = [_fit(hint, each, same) for hint, each in zip(hints.values(), found, strict=True)]
            if None in args:
                return None
            return (same[V] if result is V else _SCALARS[result])(*args), lower

        parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("typing", *hints)]
        typer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return typed_by(typer)(declaration)

    return declare


def typed_by(typer: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`op` for operations whose types do not follow from annotations: `typer` is what `numba.extending.intrinsic` asks
    for.
    """

    def declare(declaration: Callable[P, R]) -> Callable[P, R]:
        typer.__name__, typer.__doc__ = declaration.__name__, declaration.__doc__
        return cast("Callable[P, R]", intrinsic(typer))

    return declare
