"""What every method of the API has in common: typed errors become statuses, anything else becomes INTERNAL without
details.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from trireme_proto.errors import Internal, TriremeError
from trireme_proto.status import to_grpc

log = logging.getLogger(__name__)
Self = TypeVar("Self")
Request = TypeVar("Request")
Response = TypeVar("Response")

Method = Callable[[Self, Request, Any], Awaitable[Response]]


def answered(method: Method[Self, Request, Response]) -> Method[Self, Request, Response]:
    """For any method. One with a stream of responses writes them to the context, so that a cancelled call ends it where
    it stands, which an abandoned generator would not.
    """

    @functools.wraps(method)
    async def call(self: Self, request: Request, context: Any) -> Response:
        try:
            return await method(self, request, context)
        except grpc.aio.InternalError as error:  # writing to a caller who has gone
            raise asyncio.CancelledError from error
        except Exception as error:  # noqa: BLE001  (the boundary: nothing of ours may leak out of it)
            return await context.abort(*to_grpc(_typed(error)))  # type: ignore[no-any-return]  # it always raises

    return call


def _typed(error: Exception) -> TriremeError:
    if isinstance(error, TriremeError):
        return error
    log.error("a call failed in a way that it should not have", exc_info=error)
    return Internal("Something went wrong in the server; its log says what.")
