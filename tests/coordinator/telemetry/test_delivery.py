"""Delivery over OTLP to a receiver in this process; collectors that are dead, that hang, that come back."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from tests.coordinator.telemetry.recording import Recording, whole_request

from trireme_coordinator.telemetry import setup, setup_telemetry
from trireme_coordinator.telemetry.delivery import Counts, Delivery, QuietExporter
from trireme_coordinator.telemetry.tree import COORDINATOR_SERVICE, STAGE_SERVICE, Process
from trireme_coordinator.trace_settings import TraceSettings
from trireme_proto.errors import ConfigurationError

ALL = TraceSettings(trace_share=1.0)
SERVICES = (COORDINATOR_SERVICE, STAGE_SERVICE)


class Receiver(TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[pb.ExportTraceServiceRequest] = []
        self.refuses = False

    def Export(self, request, context):  # noqa: N802  gRPC's name
        if self.refuses:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        self.requests.append(request)
        return pb.ExportTraceServiceResponse()


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    server, receiver = grpc.server(ThreadPoolExecutor(2)), Receiver()
    add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def some_request(telemetry, request_id="r1"):
    trace = telemetry.request([], model="tiny", request_id=request_id)
    trace.tokenized()
    trace.queued()
    trace.admitted()
    trace.first_token()
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    return trace


@pytest.mark.parametrize("given", ["argument", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_spans_reach_a_collector(receiver, given):
    collector, endpoint = receiver
    if given == "argument":
        telemetry = setup_telemetry(endpoint, ALL, environment={})
    else:
        telemetry = setup_telemetry(settings=ALL, environment={given: endpoint})
    trace = some_request(telemetry)
    telemetry.close()
    (resource,) = [spans for request in collector.requests for spans in request.resource_spans]
    attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert attributes["service.name"] == "trireme-coordinator"
    assert attributes["service.version"]
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"generate", "admit", "tokenize", "queue", "prefill", "decode"}
    assert {span.trace_id.hex() for span in spans.values()} == {trace.trace_id}
    assert spans["generate"].parent_span_id == b""
    assert spans["tokenize"].parent_span_id == spans["admit"].span_id
    for name in ("admit", "queue", "prefill", "decode"):
        assert spans[name].parent_span_id == spans["generate"].span_id
        assert spans["generate"].start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= spans["generate"].end_time_unix_nano


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}],
    ids=["nothing set", "switched off"],
)
def test_without_a_collector_nothing_is_delivered_and_ids_are_made(environment):
    telemetry = setup_telemetry(environment=environment)
    assert not telemetry.delivers
    ids = {some_request(telemetry).trace_id for _ in range(3)}
    assert len(ids) == 3
    assert all(len(trace_id) == 32 and int(trace_id, 16) for trace_id in ids)
    telemetry.close()


def test_ids_are_made_even_where_the_library_is_switched_off(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = setup_telemetry(environment={})
    ids = {some_request(telemetry).trace_id for _ in range(3)}
    assert len(ids) == 3
    assert "0" * 32 not in ids
    telemetry.close()


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_a_collector_that_does_not_answer_slows_nothing_and_says_it_once(request, kind, monkeypatch, caplog, capfd):
    monkeypatch.setattr(setup, "_EXPORT_SECONDS", 0.3)
    telemetry = setup_telemetry(request.getfixturevalue(kind), ALL, environment={})
    started = time.thread_time()
    with caplog.at_level(logging.INFO, "trireme_coordinator.telemetry"):
        for number in range(3000):  # more spans than the queue holds
            some_request(telemetry, f"r{number}")
        spent = time.thread_time() - started
        closing = time.perf_counter()
        telemetry.close()
    assert spent / 3000 < 0.005  # of this thread; 6 spans, about 0.1 ms
    assert telemetry.counts() == Counts(delivered=0, lost=18000)
    assert time.perf_counter() - closing < 3.0
    assert [record.getMessage().split(":")[0] for record in caplog.records] in ([], ["Traces are not delivered"])
    assert capfd.readouterr() == ("", "")


def test_a_collector_that_comes_back_is_used_again(dead, monkeypatch, caplog):
    monkeypatch.setattr(setup, "_EXPORT_SECONDS", 0.3)
    telemetry = setup_telemetry(dead, ALL, environment={})
    some_request(telemetry)
    telemetry._delivery.flush()
    server, collector = grpc.server(ThreadPoolExecutor(2)), Receiver()
    add_TraceServiceServicer_to_server(collector, server)
    server.add_insecure_port(dead.removeprefix("http://"))
    server.start()
    monkeypatch.setattr(telemetry._delivery._exporter._exporter, "_timeout", 10.0)
    some_request(telemetry)
    telemetry._delivery.flush()
    telemetry.close()
    server.stop(None).wait()
    assert sum(len(scope.spans) for r in collector.requests for s in r.resource_spans for scope in s.scope_spans) == 6
    assert telemetry.counts() == Counts(delivered=6, lost=6)
    assert [record.getMessage() for record in caplog.records] == [
        "Traces are not delivered: the collector does not take them. Requests are not affected.",
        "Traces are delivered again.",
    ]


class Scripted(SpanExporter):
    def __init__(self, *results: SpanExportResult | Exception) -> None:
        self.results = list(results)
        self.shutdowns = 0

    def export(self, spans):
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def shutdown(self):
        self.shutdowns += 1


def test_failures_are_said_once_until_delivery_works_again(caplog):
    good, bad = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
    exporter = QuietExporter(Scripted(good, bad, bad, bad, good, good, bad))
    results = [exporter.export(()) for _ in range(7)]
    assert results == [good, bad, bad, bad, good, good, bad]
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said] == [
        "Traces are not delivered",
        "Traces are delivered again.",
        "Traces are not delivered",
    ]


def test_at_the_end_a_collector_that_fails_is_not_tried_again():
    script = Scripted(SpanExportResult.FAILURE, SpanExportResult.SUCCESS)
    exporter = QuietExporter(script)
    exporter.export(())
    exporter.close()
    assert script.shutdowns == 1  # also breaks off a delivery that is waiting to try again
    assert exporter.export(()) is SpanExportResult.FAILURE
    assert len(script.results) == 1
    exporter.shutdown()
    assert script.shutdowns == 1


def test_a_connection_closed_under_a_delivery_is_a_failure_and_no_fault():
    assert QuietExporter(Scripted(ValueError("closed"))).export(()) is SpanExportResult.FAILURE


@pytest.mark.parametrize(
    "endpoint", ["localhost:4317", "ftp://x:1", "http://", "http://[::1", "http://x:port", "collector"]
)
def test_an_endpoint_that_cannot_be_used_is_one_clear_sentence(endpoint):
    with pytest.raises(ConfigurationError, match="must look like http"):
        setup_telemetry(endpoint, ALL, environment={})
    with pytest.raises(ConfigurationError, match="must look like http"):
        setup_telemetry(environment={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_another_protocol_is_refused_and_not_ignored(name):
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", name: "http/json"}
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL must be grpc or http/protobuf"):
        setup_telemetry(environment=environment)


class OverHttp(BaseHTTPRequestHandler):
    """Remembers what is posted, on its server."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posts.append((self.path, pb.ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args) -> None:
        """Says nothing."""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/base/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/as/it/is"),
    ],
)
def test_spans_go_over_http_where_that_is_asked_for(name, path):
    with HTTPServer(("127.0.0.1", 0), OverHttp) as server:
        server.posts = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        given = path.removesuffix("/v1/traces")
        environment = {
            name: f"http://127.0.0.1:{server.server_port}{given}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        telemetry = setup_telemetry(settings=ALL, environment=environment)
        some_request(telemetry)
        telemetry.close()
        server.shutdown()
        thread.join()
    ((found, request),) = server.posts
    assert found == path
    assert sum(len(scope.spans) for spans in request.resource_spans for scope in spans.scope_spans) == 6
    assert telemetry.counts() == Counts(delivered=6)


def test_a_collector_that_refuses_costs_nothing_but_the_spans(receiver):
    collector, endpoint = receiver
    collector.refuses = True
    telemetry = setup_telemetry(endpoint, ALL, environment={})
    some_request(telemetry)
    telemetry._delivery.flush()
    assert telemetry.counts() == Counts(delivered=0, lost=6)
    telemetry.close()


def test_what_finds_no_room_is_lost_whole_and_counted():
    held = threading.Event()

    class Held(Scripted):
        def export(self, spans):
            held.wait(30)
            return SpanExportResult.SUCCESS

    delivery = Delivery(Held())
    spans = [
        ReadableSpan(str(n), SpanContext(1, n + 1, is_remote=False, trace_flags=TraceFlags(1))) for n in range(600)
    ]
    for _ in range(20):
        delivery.offer(spans)
    assert delivery.counts().lost == 7 * 600  # 13 times 600 is the most that 8192 have room for
    held.set()
    delivery.close()
    assert delivery.counts() == Counts(13 * 600, 7 * 600)


def test_the_name_of_the_service_can_be_given(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    telemetry = setup_telemetry(environment={"OTEL_SERVICE_NAME": "mine"})
    names = [telemetry._maker.resource(Process(kind, "x")).attributes["service.name"] for kind in SERVICES]
    assert names == ["mine", "mine-stage"]
    telemetry.close()


def test_closing_delivers_to_nobody_else():
    recording = Recording()
    whole_request(recording)
    recording.telemetry.close()
    assert len(recording.exporter.get_finished_spans()) == 13
