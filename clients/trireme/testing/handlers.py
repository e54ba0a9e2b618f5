"""How a method of the fake server fails: as the script says, or with the status of a typed error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import grpc

from trireme_proto.errors import TriremeError
from trireme_proto.status import to_grpc

Reply = TypeVar("Reply")


def refuse(context: grpc.ServicerContext, error: TriremeError) -> NoReturn:
    """Ends the call with the status of a typed error."""
    code, message, trailing = to_grpc(error)
    context.set_trailing_metadata(trailing)
    context.abort(code, message)


def scripted(method: Callable[..., Reply]) -> Callable[..., Reply]:
    """A unary method of a servicer with a `script`."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Reply:
        try:
            step = self.script.take(method.__name__)
            if step is not None and step.error is not None:
                raise step.error
            return method(self, request, context)
        except TriremeError as error:
            refuse(context, error)

    return call
