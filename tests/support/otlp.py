"""A collector in this process: takes spans by OTLP over gRPC and remembers them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class Seen:
    """A span as a collector sees it, times in milliseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: float
    end: float
    service: str
    resource: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def ms(self) -> float:
        return self.end - self.start

    def number(self, name: str) -> float:
        value = self.attributes[f"trireme.{name}"]
        assert isinstance(value, int | float)
        return value


class Collector(TraceServiceServicer):
    """`raw`: all that came in, as it came."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.spans: list[Seen] = []
        self.endpoint = ""
        self._arrival = threading.Condition()

    def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> Any:  # noqa: N802  gRPC's name
        with self._arrival:
            self.raw.append(request.SerializeToString())
            self.spans += [_seen(span, each) for each in request.resource_spans for span in _spans(each)]
            self._arrival.notify_all()
        return pb.ExportTraceServiceResponse()

    def trace(self, trace_id: str, seconds: float = 30) -> list[Seen]:
        """The spans of a trace, once its request's own span is there."""
        with self._arrival:
            assert self._arrival.wait_for(lambda: "deliver" in {s.name for s in self._of(trace_id)}, seconds)
            return self._of(trace_id)

    def _of(self, trace_id: str) -> list[Seen]:
        return [span for span in self.spans if span.trace_id == trace_id]


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that listens while the context is open."""
    found, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(found, server)
    found.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(None).wait()


def _spans(resource: Any) -> list[Any]:
    return [span for scope in resource.scope_spans for span in scope.spans]


def _seen(span: Any, resource: Any) -> Seen:
    about = {item.key: _value(item.value) for item in resource.resource.attributes}
    attributes = {item.key: _value(item.value) for item in span.attributes}
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    times = span.start_time_unix_nano / 1e6, span.end_time_unix_nano / 1e6
    return Seen(*ids, span.name, *times, about["service.name"], about, attributes)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
