"""`+ - * / & | ^ << >>` on vectors, with a vector or a plain integer on the right."""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from trireme_kernels.simd.emit import Emitter
from trireme_kernels.simd.types import VectorType

_INTEGER = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
    operator.lshift: "shl",
    operator.rshift: "ashr",
}
_FLOAT = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}


def _register(symbol: Callable[[Any, Any], Any]) -> None:
    def instruction(vector: Any) -> str:
        name = (_FLOAT if vector.kind == "f" else _INTEGER)[symbol]
        return "lshr" if name == "ashr" and vector.kind == "u" else name

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, _keywords: Any) -> Any:
            left, right = args
            if not isinstance(left, VectorType) or symbol not in (_FLOAT if left.kind == "f" else _INTEGER):
                return None
            if left == right or (isinstance(right, types.Integer) and left.kind != "f"):
                return signature(left, left, right)
            return None

    def vectors(_context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction(sig.args[0]))(*args)

    def scalar(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, number = args
        lane: ir.IntType = vector.type.element
        if number.type.width != lane.width:
            resize = builder.trunc if number.type.width > lane.width else builder.sext
            number = resize(number, lane)
        every = Emitter(context, builder, sig).splat(number, vector.type)
        return getattr(builder, instruction(sig.args[0]))(vector, every)

    infer_global(symbol)(Template)
    lower_builtin(symbol, VectorType, VectorType)(vectors)
    lower_builtin(symbol, VectorType, types.Integer)(scalar)
    lower_builtin(symbol, VectorType, types.IntegerLiteral)(scalar)


for _symbol in {*_INTEGER, *_FLOAT}:
    _register(_symbol)
