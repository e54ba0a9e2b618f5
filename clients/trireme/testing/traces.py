"""The fake server's `Traces` service: every answer seems to have taken a tenth of a second, over two stages."""
# ruff: noqa: N802, ARG002 - gRPC gives the methods their names and parameters

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock

import grpc

from trireme.testing.handlers import scripted
from trireme.testing.script import Script
from trireme_proto.errors import InvalidRequest, TraceNotFound
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import traces_pb2 as traces
from trireme_proto.v1.traces_pb2_grpc import TracesServicer

_MS = 1_000_000
_KEPT = 256
_START = 1_900_000_000 * 1000 * _MS
_SPANS = (  # name, parent, begin and end in ms, process
    ("generate", -1, 0, 100, 0),
    ("queue", 0, 1, 10, 0),
    ("prefill", 0, 10, 30, 0),
    ("stage 0", 2, 10, 20, 1),
    ("stage 1", 2, 20, 30, 2),
    ("decode", 0, 30, 100, 0),
    ("stage 0", 5, 30, 95, 1),
    ("stage 1", 5, 32, 100, 2),
)
_PROCESSES = (("trireme-coordinator", "fake"), ("trireme-stage", "fake-0"), ("trireme-stage", "fake-1"))


@dataclass(frozen=True, slots=True)
class FakeTrace:
    """What is known of an answer."""

    trace_id: str
    request_id: str
    parent_id: str
    prompt_tokens: int
    completion_tokens: int


class FakeTraces(TracesServicer):
    """Remembers the last answers."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._known: deque[tuple[int, FakeTrace]] = deque(maxlen=_KEPT)
        self._lock, self._count = Lock(), 0

    def add(self, trace: FakeTrace) -> None:
        """An answer was given."""
        with self._lock:
            self._known.append((self._count, trace))
            self._count += 1

    @scripted
    def ListTraces(self, request: traces.ListTracesRequest, context: grpc.ServicerContext) -> traces.ListTracesResponse:
        limit = request.limit if request.HasField("limit") else 20
        if not 1 <= limit <= LIMITS.trace_list:
            raise InvalidRequest(f"limit is {limit}; it must be 1 to {LIMITS.trace_list}.")
        with self._lock:
            found = list(reversed(self._known))[:limit]
        return traces.ListTracesResponse(traces=[_summary(*each) for each in found], delivery=traces.SpanDelivery())

    @scripted
    def GetTrace(self, request: traces.GetTraceRequest, context: grpc.ServicerContext) -> traces.GetTraceResponse:
        with self._lock:
            found = [each for each in self._known if request.id in {each[1].trace_id, each[1].request_id}]
        if not found:
            raise TraceNotFound("No trace of this id is kept here: it is too long ago, or another coordinator has it.")
        return traces.GetTraceResponse(requests=[_request(*each) for each in found])


def _summary(number: int, trace: FakeTrace) -> traces.TraceSummary:
    return traces.TraceSummary(
        trace_id=trace.trace_id,
        request_id=trace.request_id,
        start_ns=_START + number * 1000 * _MS,
        duration_ns=100 * _MS,
        first_token_ns=30 * _MS,
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.completion_tokens,
        outcome="length",
    )


def _request(number: int, trace: FakeTrace) -> traces.RequestSpans:
    summary = _summary(number, trace)
    spans = []
    for place, (name, parent, begin, end, process) in enumerate(_SPANS):
        span = traces.Span(span_id=_id(number, place), name=name, process=process)
        span.start_ns, span.end_ns = summary.start_ns + begin * _MS, summary.start_ns + end * _MS
        span.parent_span_id = _id(number, parent) if parent >= 0 else trace.parent_id
        if name.startswith("stage"):
            for part, share in (("wire", 1), ("wait", 2), ("compute", 7)):
                span.attributes[f"trireme.{part}_ms"].number = share * (end - begin) / 10
        spans.append(span)
    processes = [traces.SpanProcess(service=service, instance=instance) for service, instance in _PROCESSES]
    return traces.RequestSpans(summary=summary, processes=processes, spans=spans)


def _id(number: int, place: int) -> str:
    return f"{(number << 8) + place + 1:016x}"
