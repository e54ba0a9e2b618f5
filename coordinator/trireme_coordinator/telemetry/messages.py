"""From our spans to the messages of traces.proto: what is kept, and what `trireme trace` gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trireme_coordinator.telemetry import names
from trireme_coordinator.telemetry.numbering import Numbered
from trireme_coordinator.telemetry.request_trace import RequestTrace
from trireme_coordinator.telemetry.tree import Process, SpanTree, Value
from trireme_proto.v1 import traces_pb2 as pb


def request_spans(trace: RequestTrace, found: Sequence[Numbered], kept: str) -> pb.RequestSpans:
    """A request's spans; `kept`: why they were chosen to be delivered."""
    numbers: dict[Process, int] = {}
    spans = [_span(each, numbers.setdefault(each.span.process, len(numbers))) for each in found]
    return pb.RequestSpans(summary=_summary(trace, found[0].span, kept), processes=map(_process, numbers), spans=spans)


def _summary(trace: RequestTrace, root: SpanTree, kept: str) -> pb.TraceSummary:
    first = trace.at.get(names.DECODE, 0)
    attributes = root.attributes
    return pb.TraceSummary(
        trace_id=trace.trace_id,
        request_id=trace.request_id,
        start_ns=root.start_ns,
        duration_ns=root.end_ns - root.start_ns,
        first_token_ns=first - root.start_ns if first else 0,
        prompt_tokens=_count(attributes.get(names.INPUT_TOKENS)),
        completion_tokens=_count(attributes.get(names.OUTPUT_TOKENS)),
        outcome=trace.outcome,
        recoveries=_count(attributes.get(names.RECOVERIES)),
        kept=kept,
    )


def _count(value: Value | None) -> int:
    return value if isinstance(value, int) else 0


def _process(process: Process) -> pb.SpanProcess:
    return pb.SpanProcess(
        service=process.service, instance=process.instance, host=process.host, process_id=process.process_id
    )


def _span(each: Numbered, process: int) -> pb.Span:
    span = each.span
    return pb.Span(
        span_id=f"{each.span_id:016x}",
        parent_span_id=f"{each.parent_id:016x}" if each.parent_id else "",
        name=span.name,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        process=process,
        attributes={name: _value(value) for name, value in span.attributes.items()},
        error=bool(span.error),
    )


def _value(value: Value) -> pb.SpanValue:
    if isinstance(value, str):
        return pb.SpanValue(text=value)
    if isinstance(value, int):
        return pb.SpanValue(whole=value)
    if isinstance(value, float):
        return pb.SpanValue(number=value)
    return pb.SpanValue(list=pb.SpanValues(values=_each(value)))


def _each(values: Iterable[str | int | float]) -> list[pb.SpanValue]:
    return [_value(each) for each in values]
