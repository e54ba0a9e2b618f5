"""Which traces are delivered, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.coordinator.telemetry.recording import MS, Recording, Timing, step, whole_request

from trireme_coordinator.telemetry.sampling import Facts, TailSampling
from trireme_coordinator.trace_settings import TraceSettings
from trireme_proto.errors import Cancelled, Internal

PLAIN = Facts(1 << 55, None, steps=False, error=False, recoveries=0, first_token_s=0.1, token_s=0.01, pause_s=0.02)
NOTHING = TraceSettings(trace_share=0.0)


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, ""),
        ({"error": True}, "error"),
        ({"recoveries": 2}, "recovery"),
        ({"first_token_s": 2.1}, "slow"),
        ({"pause_s": 2.1}, "slow"),
        ({"steps": True}, "steps"),
        ({"caller_sampled": True}, "caller"),
        ({"caller_sampled": False, "error": True, "steps": True}, ""),
        ({"trace_id": (7 << 120) + 1}, "share"),
    ],
)
def test_what_is_kept(more, kept):
    assert TailSampling(0.1, 2.0).decide(replace(PLAIN, **more)) == kept


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_drawn_by_the_trace_id(share):
    sampling = TailSampling(share, 2.0)
    step_by = (1 << 56) // 1000 + 1
    kept = [sampling.decide(replace(PLAIN, trace_id=n * step_by)) for n in range(1000)]
    assert kept.count("share") == 1000 * share


def test_the_slowest_of_the_last_ones_are_kept_and_no_others():
    sampling = TailSampling(0.0, 2.0)
    first = [sampling.decide(replace(PLAIN, first_token_s=n / 1000)) for n in range(1, 65)]
    assert set(first) == {""}  # too few to tell
    assert sampling.decide(replace(PLAIN, first_token_s=0.2)) == "slowest"
    assert sampling.decide(replace(PLAIN, first_token_s=0.05)) == ""
    assert sampling.decide(replace(PLAIN, first_token_s=0.05, token_s=0.5)) == "slowest"


def test_what_is_not_delivered_is_in_the_ring_all_the_same():
    recording = Recording(NOTHING)
    trace = whole_request(recording)
    assert recording.spans == {}
    (summary,) = recording.telemetry.ring.recent(10)
    assert (summary.trace_id, summary.kept, summary.outcome) == (trace.trace_id, "", "length")


@pytest.mark.parametrize(("error", "kept"), [(Internal("x"), "error"), (Cancelled("x"), "")])
def test_errors_of_ours_are_delivered_and_those_of_callers_not(error, kept):
    recording = Recording(NOTHING)
    recording.request().fail(error)
    assert [summary.kept for summary in recording.telemetry.ring.recent(10)] == [kept]
    assert bool(recording.spans) is bool(kept)


def test_a_pause_in_the_answer_makes_a_request_slow():
    recording = Recording(NOTHING)
    trace = recording.request()
    trace.queued()
    trace.admitted()
    trace.step("prefill", step([Timing(MS, MS, MS)]), 3)
    trace.first_token()
    for pause in (5, 2500, 5):
        recording.clock.advance(pause)
        trace.step("decode", step([Timing(MS, MS, MS)]), 1)
    trace.complete()
    trace.finish("length", prompt_tokens=3, completion_tokens=4)
    assert recording.telemetry.ring.recent(1)[0].kept == "slow"


def test_without_ring_and_collector_nothing_is_recorded():
    from trireme_coordinator.telemetry import Telemetry

    telemetry = Telemetry(TraceSettings(trace_buffer_mb=0))
    trace = telemetry.request([], model="tiny", request_id="r")
    trace.queued()
    trace.admitted()
    trace.finish("eos", prompt_tokens=1, completion_tokens=1)
    assert (len(trace.trace_id), trace.prefill, len(telemetry.ring)) == (32, None, 0)
    telemetry.close()
