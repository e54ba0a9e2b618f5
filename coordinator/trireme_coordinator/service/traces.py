"""Traces: where the time of recent requests went, from this coordinator's memory."""

from __future__ import annotations

from typing import Any

import grpc

from trireme_coordinator.service.calls import answered
from trireme_coordinator.service.requests import check_id
from trireme_coordinator.telemetry import Telemetry
from trireme_proto.errors import InvalidRequest, TraceNotFound
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import traces_pb2 as pb
from trireme_proto.v1.traces_pb2_grpc import TracesServicer

_LIMIT = 20
Context = grpc.aio.ServicerContext[Any, Any]


class TracesService(TracesServicer):
    """Answers from the ring of recent traces. It answers also where this coordinator stands by."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    @answered
    async def ListTraces(self, request: pb.ListTracesRequest, context: Context) -> pb.ListTracesResponse:
        """See the service's definition in traces.proto."""
        limit = request.limit if request.HasField("limit") else _LIMIT
        if not 1 <= limit <= LIMITS.trace_list:
            raise InvalidRequest(f"limit is {limit}; it must be 1 to {LIMITS.trace_list}.")
        await self._telemetry.settled()
        counts = self._telemetry.counts()
        delivery = pb.SpanDelivery(enabled=self._telemetry.delivers, delivered=counts.delivered, lost=counts.lost)
        return pb.ListTracesResponse(traces=self._telemetry.ring.recent(limit), delivery=delivery)

    @answered
    async def GetTrace(self, request: pb.GetTraceRequest, context: Context) -> pb.GetTraceResponse:
        """See the service's definition in traces.proto."""
        check_id("id", request.id)
        await self._telemetry.settled()
        if not self._telemetry.ring.limit:
            raise TraceNotFound("This server keeps no traces: it was started with trace-buffer-mb 0.")
        if not (found := self._telemetry.ring.find(request.id)):
            raise TraceNotFound("No trace of this id is kept here: it is too long ago, or another coordinator has it.")
        return pb.GetTraceResponse(requests=found)
