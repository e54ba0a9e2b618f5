"""Readings for an OpenTelemetry collector: the SDK's own data model and exporter, fed with what is counted here.

The readings are taken on the event loop; delivery happens in a thread. A collector that is dead or slow costs nothing
but the figures in between, which the next delivery holds again, as all of them are sums since the start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from trireme_coordinator.metrics.catalogue import Family
from trireme_coordinator.metrics.values import Histogram, Reading, Readings
from trireme_proto.errors import ConfigurationError

log = logging.getLogger(__name__)
_SCOPE = "trireme_coordinator"
_EXPORT_SECONDS = 5.0
_INTERVAL_MS = 60_000
_CUMULATIVE = AggregationTemporality.CUMULATIVE
Clock = Callable[[], int]
"""Nanoseconds since 1970."""


class OtlpPush:
    """Delivers all readings every so often."""

    def __init__(
        self,
        readings: Callable[[], Awaitable[Readings]],
        exporter: MetricExporter,
        resource: Resource,
        interval_s: float,
        clock: Clock = time.time_ns,
    ) -> None:
        self._readings, self._exporter, self._resource = readings, exporter, resource
        self._interval_s, self._clock = interval_s, clock
        self._started = clock()
        self._failing = False

    async def keep(self) -> None:
        """Delivers until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self.deliver()
        finally:
            await asyncio.to_thread(self._exporter.shutdown)

    async def deliver(self) -> bool:
        """Once; whether the collector took it. It is said when that begins to fail, and when it works again."""
        data = metrics_data(await self._readings(), self._resource, self._started, self._clock())
        result = await asyncio.to_thread(self._exporter.export, data)
        failed = result is not MetricExportResult.SUCCESS
        if failed != self._failing:
            log.warning("the collector %s metrics", "does not take" if failed else "takes again")
        self._failing = failed
        return not failed


def push_from_environment(
    readings: Callable[[], Awaitable[Readings]],
    resource: Resource,
    environment: Mapping[str, str],
    seconds: float = _EXPORT_SECONDS,
) -> OtlpPush | None:
    """By the standard variables; None where they name no collector. `seconds`: for one delivery. ConfigurationError."""
    endpoint = environment.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or environment.get("OTEL_METRICS_EXPORTER", "otlp") == "none":
        return None
    protocol = environment.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", "grpc"}:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL must be grpc: metrics are not sent in another way."
        )
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # it tells of each attempt that failed
    exporter = OTLPMetricExporter(endpoint=endpoint, timeout=seconds)
    return OtlpPush(readings, exporter, resource, _interval(environment) / 1e3)


def _interval(environment: Mapping[str, str]) -> int:
    text = environment.get("OTEL_METRIC_EXPORT_INTERVAL") or str(_INTERVAL_MS)
    if not text.isdecimal() or not 100 <= int(text) <= 24 * 3_600_000:
        raise ConfigurationError("OTEL_METRIC_EXPORT_INTERVAL must be a number of milliseconds, 100 to 86400000.")
    return int(text)


def metrics_data(readings: Readings, resource: Resource, started_ns: int, now_ns: int) -> MetricsData:
    """All readings in the SDK's data model, cumulative since `started_ns`."""
    metrics = [
        Metric(family.otel_name, family.meaning, family.otel_unit, _data(family, values, started_ns, now_ns))
        for family, values in readings.families()
    ]
    scope = ScopeMetrics(InstrumentationScope(_SCOPE), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _data(family: Family, values: Sequence[Reading], started_ns: int, now_ns: int) -> Sum | Gauge | HistogramData:
    attributes = [dict(zip(family.otel_labels, each.labels, strict=True)) for each in values]
    if family.kind == "histogram":
        found = [
            _point(each.value, labels, started_ns, now_ns)
            for each, labels in zip(values, attributes, strict=True)
            if isinstance(each.value, Histogram)
        ]
        return HistogramData(found, _CUMULATIVE)
    points = [
        NumberDataPoint(labels, started_ns, now_ns, each.value)
        for each, labels in zip(values, attributes, strict=True)
        if not isinstance(each.value, Histogram)
    ]
    return Sum(points, _CUMULATIVE, is_monotonic=True) if family.kind == "counter" else Gauge(points)


def _point(histogram: Histogram, labels: Mapping[str, str], started_ns: int, now_ns: int) -> HistogramDataPoint:
    """Least and largest value are not kept: the bounds of the buckets that are not empty stand for them."""
    held = [i for i, count in enumerate(histogram.counts) if count]
    edges = (0.0, *histogram.bounds, histogram.bounds[-1])
    least, most = (edges[held[0]], edges[held[-1] + 1]) if held else (0.0, 0.0)
    return HistogramDataPoint(
        attributes=dict(labels),
        start_time_unix_nano=started_ns,
        time_unix_nano=now_ns,
        count=histogram.count,
        sum=histogram.total,
        bucket_counts=list(histogram.counts),
        explicit_bounds=list(histogram.bounds),
        min=least,
        max=most,
    )
