"""Who may come in: every call to inference and sessions is refused while this coordinator stands by, starts or leaves.

One place in front of all services, so that none of them needs to know of other coordinators. What tells how the cluster
is (Cluster, health, reflection) is answered always.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from trireme_proto.errors import PipelineUnavailable, TriremeError
from trireme_proto.status import to_grpc

_GUARDED = ("/trireme.v1.Inference/", "/trireme.v1.Sessions/")
_STARTING = "The stages are still starting; try again in a few seconds."


class Door(grpc.aio.ServerInterceptor):
    """Closed until `refusal` is None."""

    def __init__(self) -> None:
        self.refusal: TriremeError | None = PipelineUnavailable(_STARTING, retry_after=2.0)
        """What calls are refused with."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """GRPC asks for each call how it is to be handled."""
        handler = await continuation(handler_call_details)
        if self.refusal is None or handler is None or not handler_call_details.method.startswith(_GUARDED):
            return handler
        streams = handler.response_streaming
        made = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return made(_refuser(self.refusal), handler.request_deserializer, handler.response_serializer)


def _refuser(error: TriremeError) -> Callable[[Any, Any], Awaitable[None]]:
    async def refuse(_request: Any, context: Any) -> None:
        await context.abort(*to_grpc(error))

    return refuse
