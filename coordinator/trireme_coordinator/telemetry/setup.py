"""Wires OpenTelemetry: where spans go, what the service is called, whose trace a request belongs to.

Without a collector nothing is exported; trace ids are made all the same, so that an answer can always be found again in
logs. No global state of the library is touched. The standard OTEL_* variables are the library's own and are read by it;
the few that decide whether there is a collector are looked at here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trireme_coordinator.metrics.requests import RequestMeter
from trireme_coordinator.telemetry.delivery import QuietExporter
from trireme_coordinator.telemetry.request_trace import Clock, RequestTrace, Sampling
from trireme_proto.errors import ConfigurationError

_NAME = "trireme-coordinator"
_EXPORT_SECONDS = 3.0
"""Longest time for one batch, all attempts together; also about the longest time that `close` takes."""
_QUEUE = 8192
"""Most spans that wait for the collector; further ones are dropped."""
_BATCH = 512
_PROPAGATED = frozenset({"traceparent", "tracestate"})
_PROPAGATOR = TraceContextTextMapPropagator()


class Telemetry:
    """Makes traces. One for each process."""

    def __init__(
        self, provider: TracerProvider, *, exporter: QuietExporter | None = None, clock: Clock = time.time_ns
    ) -> None:
        self._provider, self._exporter, self._clock = provider, exporter, clock
        self._tracer = provider.get_tracer("trireme_coordinator")
        self.meter = RequestMeter()
        """Counts requests, whether or not they are traced."""

    def request(
        self,
        metadata: Iterable[tuple[str, str | bytes]],
        *,
        model: str,
        request_id: str,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
    ) -> RequestTrace:
        """The trace of a request that has just come in; `metadata` is the gRPC call's. It is part of the caller's trace
        where the caller sent one (W3C traceparent), else a new one.
        """
        trace = RequestTrace(
            self._tracer,
            self._clock,
            _parent(metadata),
            model=model,
            request_id=request_id,
            sampling=sampling,
            max_tokens=max_tokens,
        )
        trace.times = self.meter.begin()
        return trace

    def close(self) -> None:
        """Delivers what is left, within a few seconds, and stops. Blocks."""
        if self._exporter is not None:
            self._exporter.close()
        self._provider.shutdown()


def setup_telemetry(
    endpoint: str | None = None, *, environment: Mapping[str, str] | None = None, clock: Clock = time.time_ns
) -> Telemetry:
    """Telemetry that delivers by OTLP over gRPC to `endpoint` (http://HOST:PORT, or https:// for TLS).

    Without `endpoint` the standard variables OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT say
    where; without those nothing is delivered. ConfigurationError for an endpoint or a protocol that is no use.
    """
    environment = os.environ if environment is None else environment
    provider = TracerProvider(resource=resource(environment), shutdown_on_exit=False)
    endpoint = endpoint or _endpoint(environment)
    if not endpoint:
        return Telemetry(provider, clock=clock)
    exporter = QuietExporter(OTLPSpanExporter(endpoint=_checked(endpoint), timeout=_EXPORT_SECONDS))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE, max_export_batch_size=_BATCH))
    return Telemetry(provider, exporter=exporter, clock=clock)


def _parent(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """The caller's trace context; an empty one where there is none or it is malformed. Never the current span's."""
    carrier = {key: value for key, value in metadata if key in _PROPAGATED and isinstance(value, str)}
    return _PROPAGATOR.extract(carrier, context=Context())


def _endpoint(environment: Mapping[str, str]) -> str:
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return ""
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    found = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if found and protocol not in {None, "", "grpc"}:
        raise ConfigurationError("OTEL_EXPORTER_OTLP_PROTOCOL must be grpc: traces are not sent in another way.")
    return found or ""


def _checked(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("The OTLP endpoint must look like http://HOST:4317 or https://HOST:4317.")
    return endpoint


def resource(environment: Mapping[str, str]) -> Resource:
    """What we are called in traces and metrics."""
    attributes = {SERVICE_VERSION: product_version()}
    if not environment.get("OTEL_SERVICE_NAME"):
        attributes[SERVICE_NAME] = _NAME
    return Resource.create(attributes)


def product_version() -> str:
    """Of what is installed."""
    try:
        return version("trireme-inference")
    except PackageNotFoundError:
        return "unknown"
