"""Readings as Prometheus' text and as OpenTelemetry's data, read by these projects' own code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from trireme_coordinator.metrics.otlp import push_from_environment
from trireme_coordinator.metrics.prometheus import exposition
from trireme_coordinator.metrics.values import Histogram, Readings
from trireme_proto.errors import ConfigurationError

HOSTILE = 'a"b\\c\nd{}=,\u202e#'


def readings() -> Readings:
    found, waits = Readings(), Histogram((0.1, 1.0))
    for value in (0.1, 0.5, 0.6, 7.0):
        waits.add(value)
    found.put("trireme_request_queue_seconds", waits)
    found.put("trireme_requests_total", 3, "OK", HOSTILE)
    found.put("trireme_kv_pages_capacity", 64)
    return found


def test_text() -> None:
    text = exposition(readings()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (counted,) = families["trireme_requests"].samples
    assert (counted.name, counted.labels, counted.value) == (
        "trireme_requests_total",
        {"code": "OK", "reason": HOSTILE},
        3,
    )
    samples = families["trireme_request_queue_seconds"].samples
    assert {s.labels["le"]: s.value for s in samples if "le" in s.labels} == {"0.1": 1, "1.0": 3, "+Inf": 4}
    assert {s.name: s.value for s in samples if "le" not in s.labels} == {
        "trireme_request_queue_seconds_sum": 8.2,
        "trireme_request_queue_seconds_count": 4,
    }
    assert families["trireme_kv_pages_capacity"].type == "gauge"


class Collector(MetricsServiceServicer):
    def __init__(self) -> None:
        self.requests: list[pb.ExportMetricsServiceRequest] = []

    async def Export(  # noqa: N802
        self, request: pb.ExportMetricsServiceRequest, context: Any
    ) -> pb.ExportMetricsServiceResponse:
        self.requests.append(request)
        return pb.ExportMetricsServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.aio.server()
    add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def taken() -> Readings:
    return readings()


async def test_a_collector_gets_them_over_grpc() -> None:
    async with collecting() as (collector, endpoint):
        push = push_from_environment(taken, Resource({"service.name": "x"}), {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        assert push is not None
        assert await push.deliver()
    (of_resource,) = collector.requests[0].resource_metrics
    assert [(a.key, a.value.string_value) for a in of_resource.resource.attributes] == [("service.name", "x")]
    metrics = {metric.name: metric for metric in of_resource.scope_metrics[0].metrics}
    (queue,) = metrics["trireme.request_queue"].histogram.data_points
    assert metrics["trireme.request_queue"].unit == "s"
    assert (list(queue.bucket_counts), list(queue.explicit_bounds), queue.sum) == ([1, 2, 1], [0.1, 1.0], 8.2)
    assert metrics["trireme.requests"].sum.is_monotonic
    assert metrics["trireme.kv_pages_capacity"].gauge.data_points[0].as_int == 64


async def test_a_dead_collector_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    environment = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}
    push = push_from_environment(taken, Resource({}), environment, 0.2)
    assert push is not None
    assert [await push.deliver() for _ in range(2)] == [False, False]
    assert [r.getMessage() for r in caplog.records if "metrics" in r.getMessage() and r.name.startswith("trireme")] == [
        "the collector does not take metrics"
    ]


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_METRICS_EXPORTER": "none"}],
)
def test_nothing_is_sent_unless_asked_for(environment: dict[str, str]) -> None:
    assert push_from_environment(taken, Resource({}), environment) is None


@pytest.mark.parametrize(
    "more", [{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, {"OTEL_METRIC_EXPORT_INTERVAL": "soon"}]
)
def test_settings_that_are_no_use(more: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(more)).split("_")[1]):
        push_from_environment(taken, Resource({}), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} | more)
