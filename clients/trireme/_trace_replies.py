"""Messages of traces.proto to the values that users get."""

from __future__ import annotations

from types import MappingProxyType

from trireme.traces import RecentTraces, RequestSpans, Span, SpanProcess, SpanValue, TraceSummary
from trireme_proto.v1 import traces_pb2 as traces


def recent(message: traces.ListTracesResponse) -> RecentTraces:
    """A listing."""
    counts = message.delivery
    return RecentTraces(tuple(map(_summary, message.traces)), counts.enabled, counts.delivered, counts.lost)


def requests(message: traces.GetTraceResponse) -> tuple[RequestSpans, ...]:
    """The requests of one trace."""
    return tuple(map(_request, message.requests))


def _request(message: traces.RequestSpans) -> RequestSpans:
    processes = [SpanProcess(p.service, p.instance, p.host, p.process_id) for p in message.processes]
    return RequestSpans(_summary(message.summary), tuple(_span(span, processes) for span in message.spans))


def _summary(message: traces.TraceSummary) -> TraceSummary:
    return TraceSummary(
        trace_id=message.trace_id,
        request_id=message.request_id,
        start_ns=message.start_ns,
        duration_ns=message.duration_ns,
        first_token_ns=message.first_token_ns,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        outcome=message.outcome,
        recoveries=message.recoveries,
        kept=message.kept,
    )


def _span(message: traces.Span, processes: list[SpanProcess]) -> Span:
    return Span(
        span_id=message.span_id,
        parent_span_id=message.parent_span_id,
        name=message.name,
        start_ns=message.start_ns,
        end_ns=message.end_ns,
        process=processes[message.process] if message.process < len(processes) else SpanProcess("", "", "", 0),
        attributes=MappingProxyType({name: _value(value) for name, value in sorted(message.attributes.items())}),
        error=message.error,
    )


def _value(message: traces.SpanValue) -> SpanValue:
    match message.WhichOneof("value"):
        case "whole":
            return message.whole
        case "number":
            return message.number
        case "list":
            return tuple(map(_value, message.list.values))
        case _:
            return message.text
