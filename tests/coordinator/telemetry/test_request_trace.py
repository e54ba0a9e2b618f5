"""The tree of spans that a request leaves, its times, and what it never holds."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.trace import SpanKind, StatusCode
from tests.coordinator.telemetry.recording import MS, Recording, Sampling, Timing, step, whole_request

from trireme_coordinator.telemetry import Lookup, names
from trireme_coordinator.telemetry.step_log import BUCKETS_MS
from trireme_proto.errors import Cancelled, DeadlineExceeded, Internal, InvalidRequest, Overloaded, PipelineUnavailable
from trireme_proto.v1.stage_pb2 import StageTiming

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture
def recording() -> Recording:
    return Recording()


def test_a_request_leaves_this_tree_with_these_times(recording):
    trace = whole_request(recording)
    assert recording.times() == {
        "generate": (0, 59),
        "generate/admit": (0, 3),
        "generate/admit/tokenize": (0, 2),
        "generate/queue": (3, 13),
        "generate/prefill": (13, 43),
        "generate/prefill/chunk": (32, 43),  # the second one
        "generate/prefill/stage 0": (17, 38),  # 28 - 11 to 43 - 5
        "generate/prefill/stage 1": (23, 43),
        "generate/decode": (43, 58),
        "generate/decode/stage 0": (43, 55.5),
        "generate/decode/stage 1": (45.5, 58),
        "generate/deliver": (58, 59),
    }
    assert {f"{span.context.trace_id:032x}" for span in recording.spans.values()} == {trace.trace_id}


def test_the_request_span_says_what_was_asked_in_the_words_of_the_conventions(recording):
    whole_request(recording, sampling=Sampling(), max_tokens=4)
    span = recording.spans["generate"]
    assert span.kind is SpanKind.SERVER
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "trireme",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.response.id": "r1",
        "gen_ai.request.max_tokens": 4,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 42,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.response.time_to_first_chunk": 0.043,
        "trireme.recoveries": 0,
    }


def test_guesses_are_said_where_there_were_any(recording):
    for drafted, accepted in ((0, 0), (7, 5)):
        trace = recording.request()
        trace.guessed(drafted, accepted)
        trace.finish("eos", prompt_tokens=1, completion_tokens=1)
        trace.guessed(1, 1)  # too late
        found = dict(recording.spans["generate"].attributes)
        expected = {"trireme.drafted_tokens": 7, "trireme.accepted_tokens": 5} if drafted else {}
        assert {name: value for name, value in found.items() if name.endswith("ed_tokens")} == expected


def test_what_came_of_looking_for_pages_is_said(recording):
    trace = recording.request()
    trace.queued()
    recording.clock.advance(300)
    trace.admitted(lookup=Lookup(260 * MS, 32, True, 8, 6, 12345, 0.25, 0.2))
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    found = dict(recording.spans["generate"].attributes)
    assert {name: value for name, value in found.items() if name.startswith(("trireme.store", "trireme.restore"))} == {
        "trireme.stored_pages": 8,
        "trireme.restored_pages": 6,
        "trireme.restored_bytes": 12345,
        "trireme.restore_ms": 250.0,
    }
    times = recording.times()
    assert times["generate/queue/prefix lookup"] == (40, 90)
    assert times["generate/queue/kv restore"] == (90, 290)
    assert recording.spans["generate/queue/prefix lookup"].attributes["gen_ai.usage.cache_read.input_tokens"] == 32
    assert dict(recording.spans["generate/queue/kv restore"].attributes) == {
        "trireme.restored_pages": 6,
        "trireme.restored_bytes": 12345,
    }


def test_each_stage_says_where_its_time_went(recording):
    whole_request(recording)
    assert dict(recording.spans["generate/prefill"].attributes) == {
        "trireme.frames": 2,
        "trireme.tokens": 9,
        "trireme.coordinator_ms": 8.0,  # 13 to 17, 28 to 32
        "trireme.longest_pause_ms": 15.0,
    }
    assert dict(recording.spans["generate/prefill/stage 0"].attributes) == {
        "trireme.stage": 0,
        "trireme.first_layer": 0,
        "trireme.end_layer": 3,
        "trireme.frames": 2,
        "trireme.tokens": 9,
        "trireme.wire_ms": 2.0,
        "trireme.wait_ms": 4.0,
        "trireme.compute_ms": 6.0,
        "trireme.ahead_ms": 0.0,
        "trireme.histogram.bounds_ms": BUCKETS_MS,
        "trireme.histogram.steps": (0,) * 6 + (2,) + (0,) * 9,
        "trireme.slowest_ms": 6.0,
        "trireme.slowest_step": 0,
    }
    decode = recording.spans["generate/decode/stage 1"].attributes
    assert (decode["trireme.frames"], decode["trireme.tokens"]) == (3, 3)
    assert (decode["trireme.wire_ms"], decode["trireme.wait_ms"], decode["trireme.compute_ms"]) == (1.5, 3.0, 3.0)
    assert (decode["trireme.first_layer"], decode["trireme.end_layer"]) == (3, 6)


def test_timings_of_the_wire_format_are_taken_as_they_are(recording):
    trace = recording.request()
    trace.queued()
    trace.admitted()
    recording.clock.advance(10)
    trace.step("prefill", step([StageTiming(wire_ns=MS, wait_ns=MS, compute_ns=MS)] * 2), 5)
    trace.finish("eos", prompt_tokens=5, completion_tokens=0)
    assert recording.spans["generate/prefill/stage 1"].attributes["trireme.compute_ms"] == 1.0
    assert "trireme.first_layer" not in recording.spans["generate/prefill/stage 1"].attributes


def test_clocks_that_differ_between_machines_do_not_bend_the_tree(recording):
    trace = recording.request()
    trace.queued()
    trace.admitted()
    recording.clock.advance(10)
    trace.step("prefill", step([Timing(10**15, 0, 1), Timing(2**63, 0, 1)], sent_ns=2**63, round_ns=MS), 1)
    trace.first_token()
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    for path, (start, end) in recording.times().items():
        assert 0 <= start <= end <= 10, path
    encode_spans(recording.exporter.get_finished_spans())


def test_a_prefill_in_the_middle_of_an_answer_is_told_apart(recording):
    trace = recording.request()
    trace.queued()
    trace.admitted()
    one = [Timing(MS, MS, MS)]
    trace.step("prefill", step(one), 20)
    trace.first_token()
    recording.clock.advance(3)
    trace.step("decode", step(one), 1)
    trace.admitted()  # it made way for another one, and all is computed again
    recording.clock.advance(50)
    trace.step("prefill", step(one, round_ns=10 * MS), 21)
    recording.clock.advance(3)
    trace.step("decode", step(one), 1)
    trace.finish("eos", prompt_tokens=20, completion_tokens=2)
    spans, times = recording.spans, recording.times()
    assert "trireme.recomputed_tokens" not in spans["generate/prefill"].attributes
    decode = spans["generate/decode"].attributes
    assert (decode["trireme.recomputed_tokens"], decode["trireme.tokens"], decode["trireme.frames"]) == (21, 2, 2)
    assert decode["trireme.coordinator_ms"] == 0
    assert times["generate/decode/recompute"] == times["generate/decode/recompute/chunk"] == (43, 53)
    assert spans["generate/decode/recompute/stage 0"].attributes["trireme.tokens"] == 21


def test_requests_at_the_same_time_keep_apart(recording):
    traces = [recording.request(request_id=f"r{number}") for number in range(3)]
    for call in ("tokenized", "queued", "admitted", "first_token"):
        for trace in traces:
            recording.clock.advance(1)
            getattr(trace, call)()
    for trace in traces:
        trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    finished = recording.exporter.get_finished_spans()
    roots = {span.context.span_id: span for span in finished if span.name == "generate"}
    assert len({trace.trace_id for trace in traces}) == len(roots) == 3
    everybody = {span.context.span_id: span for span in finished}
    assert len(everybody) == len(finished) == 18
    for span in finished:
        if span.parent is not None:
            assert everybody[span.parent.span_id].context.trace_id == span.context.trace_id


def test_the_callers_trace_goes_on(recording):
    trace = recording.request([("user-agent", "x"), ("traceparent", PARENT), ("tracestate", "a=1")])
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    span = recording.spans["generate"]
    assert trace.trace_id == "0123456789abcdef0123456789abcdef"
    assert f"{span.parent.span_id:016x}" == "0123456789abcdef"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
        "00-00000000000000000000000000000000-0123456789abcdef-01",
        "00-0123456789abcdef0123456789abcdef-0000000000000000-01",
        "ff-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
        "00-" + "z" * 32 + "-0123456789abcdef-01",
        "00-" + "0" * 5000,
    ],
)
def test_a_malformed_trace_context_begins_a_new_trace(recording, value):
    trace = recording.request([("traceparent", value)])
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    assert recording.spans["generate"].parent is None
    assert len(trace.trace_id) == 32
    assert int(trace.trace_id, 16) not in {0, 0x0123456789ABCDEF0123456789ABCDEF}


def test_a_caller_who_does_not_sample_is_not_recorded_and_keeps_the_trace_id(recording):
    trace = whole_request(recording, metadata=[("traceparent", PARENT[:-1] + "0")])
    assert trace.trace_id == "0123456789abcdef0123456789abcdef"
    assert recording.spans == {}


@pytest.mark.parametrize(
    ("error", "kind", "code", "is_fault"),
    [
        (Internal("x"), "INTERNAL", 13, True),
        (PipelineUnavailable("x"), "PIPELINE_UNAVAILABLE", 14, True),
        (DeadlineExceeded("x"), "DEADLINE_EXCEEDED", 4, True),
        (ZeroDivisionError("x"), "ZeroDivisionError", 13, True),
        (InvalidRequest("x"), "INVALID_REQUEST", 3, False),
        (Overloaded("x"), "OVERLOADED", 8, False),
        (Cancelled("x"), "CANCELLED", 1, False),
        (asyncio.CancelledError(), "CANCELLED", 1, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failure_ends_every_span_and_says_its_kind(recording, error, kind, code, is_fault):
    trace = recording.request()
    trace.tokenized()
    trace.queued()
    recording.clock.advance(4)
    trace.fail(error)
    span = recording.spans["generate"]
    assert span.attributes[names.ERROR_TYPE] == kind
    assert span.attributes[names.GRPC_STATUS] == code
    assert (span.status.status_code is StatusCode.ERROR) is is_fault
    assert span.events == ()
    times = {"generate": (0, 4), "generate/admit": (0, 0), "generate/admit/tokenize": (0, 0), "generate/queue": (0, 4)}
    assert recording.times() == times


def test_only_the_first_end_counts(recording, caplog):
    trace = whole_request(recording)
    before = len(recording.exporter.get_finished_spans())
    trace.fail(Internal("x"))
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    trace.tokenized()
    trace.queued()
    trace.admitted()
    trace.step("decode", step([Timing(1, 1, 1)]), 1)
    trace.first_token()
    trace.complete()
    assert len(recording.exporter.get_finished_spans()) == before
    assert names.ERROR_TYPE not in recording.spans["generate"].attributes
    assert caplog.records == []


@pytest.mark.parametrize("seed", [0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_every_seed_can_be_delivered(recording, seed, caplog):
    recording.request(sampling=Sampling(seed=seed)).finish("eos", prompt_tokens=1, completion_tokens=1)
    assert str(recording.spans["generate"].attributes["gen_ai.request.seed"]) == str(seed)
    encoded = encode_spans(recording.exporter.get_finished_spans()).SerializeToString()
    assert b"gen_ai.request.seed" in encoded
    assert caplog.records == []


def test_the_number_of_stage_spans_is_bounded(recording):
    trace = recording.request()
    trace.queued()
    trace.admitted()
    trace.step("prefill", step([Timing(1, 1, 1)] * 5000), 1)
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    assert len([span for span in recording.exporter.get_finished_spans() if span.name.startswith("stage")]) == 1024


CANARY = "canary-4711"


@pytest.mark.parametrize("error", [None, ValueError, Internal, InvalidRequest, asyncio.CancelledError])
def test_no_prompt_answer_or_credential_gets_into_a_span(recording, error, caplog):
    """All that surrounds a request carries the canary; what is exported is searched, text and bytes."""
    metadata = [("authorization", f"Bearer {CANARY}"), ("baggage", f"prompt={CANARY}"), ("traceparent", PARENT)]
    if error is None:
        whole_request(recording, metadata=metadata)
    else:
        trace = recording.request(metadata)
        trace.queued()
        trace.admitted()
        raised = error(f"while answering {CANARY}")
        raised.__cause__ = ValueError(CANARY)
        trace.fail(raised)
    finished = recording.exporter.get_finished_spans()
    assert finished
    assert not any(CANARY in span.to_json() for span in finished)
    assert CANARY.encode() not in encode_spans(finished).SerializeToString()
    assert CANARY not in caplog.text
