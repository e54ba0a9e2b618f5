"""Steps added up: those sent ahead, those of two epochs, those that are spans of their own; and recoveries."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.coordinator.telemetry.recording import MS, START, Recording, Timing, step

from trireme_coordinator.telemetry import STAGE_SERVICE, Process
from trireme_coordinator.telemetry.step_log import StepLog
from trireme_proto.limits import LIMITS


def processes(epoch: int) -> list[Process]:
    return [Process(STAGE_SERVICE, f"stage-{i}@h:{epoch}{i}", "h", 10 * epoch + i) for i in range(2)]


def test_what_waits_ahead_is_counted_once():
    """Steps of 10 ms each; a frame is sent when the one before it has just begun, and waits for 8 ms at stage 0."""
    log = StepLog(0)
    for n in range(1, 11):
        ahead = [Timing(MS, 8 * MS, 3 * MS), Timing(MS, MS, 4 * MS)]
        log.add(step(ahead, sent_ns=10 * n * MS, round_ns=20 * MS), 1, (10 * n + 1) * MS)
    log.fold()
    (sums,) = log.sums
    # 18 ms of each step's time, of which 8 lie before the end of the one before: 1 of wire, 7 of wait
    assert [int(each) // MS for each in sums.times[0, :3]] == [0, 10, 30]
    assert [int(each) // MS for each in sums.times[1, :3]] == [10, 10, 40]
    assert [int(each) // MS for each in sums.ahead] == [80, 0]
    assert sums.times[:, :3].sum() == 100 * MS
    assert log.coordinator_ns == 0


def test_the_way_back_and_the_coordinators_turn_are_what_is_between_two_steps():
    """Each step takes 6 ms; its result is on its way for 1 ms, and the next one is sent 2 ms later."""
    log = StepLog(0)
    for n in range(5):
        done = 9 * n * MS + 6 * MS
        log.add(step([Timing(MS, 2 * MS, 3 * MS)], sent_ns=done, round_ns=7 * MS), 1, done + MS)
    log.fold()
    assert (log.coordinator_ns, log.longest_gap_ns) == (4 * 3 * MS, 9 * MS)
    assert log.sums[0].times[0, :3].sum() == 30 * MS


@pytest.mark.parametrize("count", [1, 63, 64, 65, 500])
def test_adding_up_many_at_a_time_loses_none(count):
    log = StepLog(0)
    for n in range(count):
        log.add(step([Timing(0, 0, MS * (5 if n == count // 2 else 1))]), 2, 100 * n * MS)
    log.fold()
    (sums,) = log.sums
    assert (log.frames, log.tokens, sums.frames) == (count, 2 * count, count)
    assert (int(sums.slowest[0]), int(sums.slowest_step[0])) == (5 * MS, count // 2)
    assert sums.histogram.sum() == count


def test_a_stage_with_another_process_has_a_span_of_its_own():
    recording = Recording()
    trace = recording.request()
    trace.queued()
    trace.admitted([(0, 3), (3, 6)])
    for epoch in (1, 2):
        recording.clock.advance(10)
        trace.step("prefill", step([Timing(MS, MS, MS)] * 2, stages=processes(epoch)), 3)
    trace.finish("eos", prompt_tokens=6, completion_tokens=0)
    found = [span for span in recording.exporter.get_finished_spans() if span.name == "stage 1"]
    assert [span.resource.attributes["process.pid"] for span in found] == [11, 21]
    assert [span.attributes["trireme.process_id"] for span in found] == [11, 21]
    assert {span.resource.attributes["service.name"] for span in found} == {"trireme-stage"}


def test_every_step_is_a_span_where_that_was_asked_for():
    recording = Recording()
    trace = recording.request(every_step=True)
    trace.queued()
    trace.admitted()
    trace.step("prefill", step([Timing(MS, MS, MS)] * 2), 3)
    trace.first_token()
    for _ in range(70):
        recording.clock.advance(10)
        trace.step("decode", step([Timing(MS, MS, MS)] * 2, round_ns=8 * MS), 1)
    trace.finish("length", prompt_tokens=3, completion_tokens=71)
    recording.telemetry.close()  # they are made aside
    steps = [span for span in recording.exporter.get_finished_spans() if span.name == "step"]
    assert [span.attributes["trireme.step"] for span in steps] == list(range(70))
    assert [(span.start_time - START) / MS for span in steps[:2]] == [4, 14]
    below = [
        span
        for span in recording.exporter.get_finished_spans()
        if span.parent and span.parent.span_id == steps[0].context.span_id
    ]
    assert [(span.name, span.attributes["trireme.compute_ms"]) for span in below] == [
        ("stage 0", 1.0),
        ("stage 1", 1.0),
    ]
    assert recording.telemetry.ring.recent(1)[0].kept == "steps"


def test_steps_beyond_the_bound_are_counted():
    recording = Recording()
    trace = recording.request(every_step=True)
    trace.queued()
    trace.admitted()
    trace.step("prefill", step([Timing(0, 0, 1)]), 3)
    trace.first_token()
    for _ in range(LIMITS.trace_spans):
        trace.step("decode", step([Timing(0, 0, 1)]), 1)
    trace.finish("length", prompt_tokens=3, completion_tokens=5)
    recording.telemetry.close()
    spans = recording.exporter.get_finished_spans()
    assert LIMITS.trace_spans - 200 < len(spans) <= LIMITS.trace_spans
    steps = sum(span.name == "step" for span in spans)
    (decode,) = (span for span in spans if span.name == "decode")
    assert decode.attributes["trireme.spans_left_out"] == LIMITS.trace_spans - steps


@dataclass(frozen=True)
class Event:
    at_ns: int
    cause: str = "hung"
    stages: tuple[int, ...] = (1,)
    method: str = "moved"
    detection_s: float = 0.5
    rebuild_s: float = 1.5


class Books:
    def __init__(self, *events: Event) -> None:
        self.events = events

    def recent(self) -> tuple[Event, ...]:
        return self.events


def test_a_recovery_has_its_cause_its_method_and_all_that_it_took():
    recording = Recording()
    books = Books(Event(START - 1), Event(START + 3000 * MS))
    trace = recording.request(recoveries=books)
    trace.queued()
    trace.admitted()
    trace.step("prefill", step([Timing(MS, MS, MS)]), 3)
    trace.first_token()
    recording.clock.advance(1000)
    trace.step("decode", step([Timing(MS, MS, MS)]), 1)
    recording.clock.advance(2100)
    trace.step("prefill", step([Timing(MS, MS, 80 * MS)], round_ns=90 * MS), 4)
    recording.clock.advance(10)
    trace.step("decode", step([Timing(MS, MS, MS)]), 1)
    trace.complete()
    trace.finish("length", prompt_tokens=3, completion_tokens=3)
    times, spans = recording.times(), recording.spans
    assert times["generate/decode/recovery"] == (1000, 3100)
    assert times["generate/decode/recovery/detect"] == (1000, 1500)
    assert times["generate/decode/recovery/rebuild"] == (1500, 3000)
    assert times["generate/decode/recovery/recompute"] == (3010, 3100)
    assert dict(spans["generate/decode/recovery"].attributes) == {
        "trireme.recovery.cause": "hung",
        "trireme.recovery.stages": (1,),
        "trireme.recovery.method": "moved",
        "trireme.recovery.kv": "recomputed",
        "trireme.recomputed_tokens": 4,
    }
    assert spans["generate"].attributes["trireme.recoveries"] == 1
    assert recording.telemetry.ring.recent(1)[0].kept == "recovery"


def test_a_recovery_that_outlives_the_request_is_told_as_far_as_it_got():
    recording = Recording()
    recording.clock.advance(5000)
    unfinished = Event(START + 8000 * MS, "dead", (0,), "unfinished", 0.0, 2.0)
    trace = recording.request(recoveries=Books(unfinished))
    trace.queued()
    recording.clock.advance(3000)
    trace.fail(TimeoutError())
    assert recording.times()["generate/queue/recovery"] == (6000, 8000)
    assert recording.spans["generate/queue/recovery"].attributes["trireme.recovery.method"] == "unfinished"
