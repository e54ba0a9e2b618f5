"""How a method of the fake server fails: as the script says, or with the status of a typed error."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import grpc

from trireme.testing.script import Step
from trireme_proto.errors import TriremeError
from trireme_proto.status import to_grpc

Reply = TypeVar("Reply")


class ConnectionLostError(Exception):
    """The caller is to see what it sees where the connection breaks."""


def refuse(context: grpc.ServicerContext, error: TriremeError | ConnectionLostError) -> NoReturn:
    """Ends the call with the status of a typed error, or with that of a broken connection."""
    if isinstance(error, ConnectionLostError):
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    code, message, trailing = to_grpc(error)
    context.set_trailing_metadata(trailing)
    context.abort(code, message)


def end_of(context: grpc.ServicerContext) -> threading.Event:
    """Set when the call is over, whoever ended it."""
    over = threading.Event()
    if not context.add_callback(over.set):
        over.set()
    return over


def interrupt(step: Step | None, over: threading.Event) -> None:
    """Does what the script says in this place: raises the step's error, or waits until the caller goes away."""
    if step is not None and step.error is not None:
        raise step.error
    if step is not None and step.lose:
        raise ConnectionLostError
    if step is not None and step.hold:
        over.wait()


def scripted(method: Callable[..., Reply]) -> Callable[..., Reply]:
    """A unary method of a servicer with a `script`."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Reply:
        over = end_of(context)
        try:
            interrupt(self.script.take(method.__name__), over)
            return method(self, request, context)
        except (TriremeError, ConnectionLostError) as error:
            refuse(context, error)

    return call
