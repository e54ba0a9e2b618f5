"""From our spans to OpenTelemetry's: what its exporters take.

Each process has a resource of its own, so that a backend shows stages as services beside the coordinator, although it
is the coordinator that tells of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from opentelemetry.sdk.resources import (
    HOST_NAME,
    PROCESS_PID,
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from trireme_coordinator.telemetry.context import TraceContext
from trireme_coordinator.telemetry.naming import product_version
from trireme_coordinator.telemetry.numbering import Numbered
from trireme_coordinator.telemetry.tree import COORDINATOR_SERVICE, STAGE_SERVICE, Process

_SCOPE = InstrumentationScope("trireme_coordinator")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_MOST_RESOURCES = 4096


class SpanMaker:
    """Makes spans for delivery. `environment`: for the name that the operator gave the service (OTEL_SERVICE_NAME)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        given = environment.get("OTEL_SERVICE_NAME")
        self._names = {COORDINATOR_SERVICE: given, STAGE_SERVICE: f"{given}-stage"} if given else {}
        self._resource = lru_cache(_MOST_RESOURCES)(self._made)

    def spans(self, found: Iterable[Numbered], context: TraceContext) -> list[ReadableSpan]:
        """The spans of one request, in the same order."""
        return [self._span(each, context) for each in found]

    def resource(self, process: Process) -> Resource:
        """What is said of a process."""
        return self._resource(process)

    def _span(self, each: Numbered, context: TraceContext) -> ReadableSpan:
        span = each.span
        foreign = each.parent is None or each.parent.process != span.process
        parent = _context(context, each.parent_id, remote=foreign) if each.parent_id else None
        return ReadableSpan(
            span.name,
            _context(context, each.span_id, remote=False),
            parent,
            self._resource(span.process),
            _attributes(span.attributes),
            kind=SpanKind.SERVER if foreign else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )

    def _made(self, process: Process) -> Resource:
        attributes: dict[str, AttributeValue] = {
            SERVICE_NAME: self._names.get(process.service, process.service),
            SERVICE_INSTANCE_ID: process.instance,
            SERVICE_VERSION: product_version(),
        }
        if process.host:
            attributes[HOST_NAME] = process.host
        if process.process_id:
            attributes[PROCESS_PID] = process.process_id
        return Resource.create(attributes)


def _context(context: TraceContext, span_id: int, *, remote: bool) -> SpanContext:
    return SpanContext(context.trace_id, span_id, remote, _SAMPLED, context.state)


def _attributes(values: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    return dict(values)
