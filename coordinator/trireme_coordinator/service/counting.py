"""Counts calls of the public API by method and status, as the first one that sees a call and the last one to let it go:
what is refused at the door is counted too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from trireme_coordinator.metrics.requests import RequestMeter

_OURS = "/trireme.v1."
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
Handler = Callable[[Any, Any], Awaitable[Any]]


class Counting(grpc.aio.ServerInterceptor):
    """To be put before all others. Ours alone: the library's own services are not coroutines."""

    def __init__(self, meter: RequestMeter) -> None:
        self._meter = meter

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """GRPC asks for each call how it is to be handled."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        streams = handler.response_streaming
        made = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        counted = self._counted(method.removeprefix(_OURS), handler.unary_stream if streams else handler.unary_unary)
        return made(counted, handler.request_deserializer, handler.response_serializer)

    def _counted(self, method: str, handler: Handler) -> Handler:
        async def call(request: Any, context: Any) -> Any:
            code = "UNKNOWN"
            try:
                answer = await handler(request, context)
                code = "OK"
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except BaseException:
                code = _code(context)
                raise
            finally:
                self._meter.call(method, code)
            return answer

        return call


def _code(context: Any) -> str:
    """Of a call that was aborted."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")
