"""The memory of recent traces: bounded in bytes, found by either id."""

from __future__ import annotations

from trireme_coordinator.telemetry.ring import Ring
from trireme_proto.v1 import traces_pb2 as pb


def spans(trace_id: str, request_id: str, start: int, size: int = 0) -> pb.RequestSpans:
    summary = pb.TraceSummary(trace_id=trace_id, request_id=request_id, start_ns=start)
    return pb.RequestSpans(summary=summary, spans=[pb.Span(name="x" * size)])


def test_the_oldest_go_when_there_is_no_room():
    ring = Ring(10_000)
    for n in range(20):
        ring.put(spans(f"t{n}", f"r{n}", n, 900))
        assert ring.bytes <= 10_000
    assert [each.trace_id for each in ring.recent(100)] == [f"t{n}" for n in range(19, 19 - len(ring), -1)]
    assert 4 <= len(ring) <= 5
    assert ring.find("t0") == []
    assert [each.summary.request_id for each in ring.find("t19")] == ["r19"]


def test_one_that_is_too_large_pushes_nobody_out():
    ring = Ring(10_000)
    ring.put(spans("t", "r", 1))
    ring.put(spans("u", "s", 2, 20_000))
    assert [each.trace_id for each in ring.recent(10)] == ["t"]


def test_requests_of_one_trace_come_in_the_order_of_their_starts():
    ring = Ring(1 << 20)
    for request, start in (("b", 2), ("a", 1), ("c", 3)):
        ring.put(spans("same", request, start))
    ring.put(spans("other", "d", 0))
    assert [each.summary.request_id for each in ring.find("same")] == ["a", "b", "c"]
    assert [each.summary.trace_id for each in ring.find("d")] == ["other"]


def test_no_room_at_all():
    ring = Ring(0)
    ring.put(spans("t", "r", 1))
    assert (len(ring), ring.bytes) == (0, 0)
