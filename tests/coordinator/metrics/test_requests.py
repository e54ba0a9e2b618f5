"""What the life of a request adds to the metrics, on a clock that is set by hand."""

from __future__ import annotations

import logging

import pytest

from trireme_coordinator.metrics.requests import RequestMeter
from trireme_proto.limits import LIMITS


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> RequestMeter:
    return RequestMeter(clock)


def test_a_request_that_ends_well(meter: RequestMeter, clock: Clock) -> None:
    times = meter.begin()
    for seconds, told in ((1, times.queued), (2, times.admitted), (4, times.first_token)):
        clock.now += seconds
        told()
    clock.now += 9
    times.finished("length", 10)
    assert meter.queue.total == 2
    assert meter.prefill.total == 4
    assert meter.first_token.total == 7
    assert meter.per_token.total == 1
    assert meter.durations[""].total == 16
    assert meter.requests == {("OK", "length"): 1}


def test_what_comes_twice_counts_once(meter: RequestMeter, clock: Clock) -> None:
    times = meter.begin()
    for told in (times.queued, times.admitted, times.first_token) * 2:
        clock.now += 1
        told()
    times.failed("UNAVAILABLE", "LEASE_LOST")
    times.finished("eos", 3)
    assert (meter.queue.total, meter.prefill.total, meter.first_token.total) == (1, 1, 3)
    assert meter.requests == {("UNAVAILABLE", "LEASE_LOST"): 1}
    assert list(meter.durations) == ["LEASE_LOST"]
    assert meter.per_token.count == 0


def test_an_answer_of_one_token_has_no_time_for_each_further_one(meter: RequestMeter) -> None:
    times = meter.begin()
    times.first_token()
    times.finished("eos", 1)
    assert meter.per_token.count == 0


def test_reasons_and_methods_are_bounded(meter: RequestMeter) -> None:
    for i in range(10 * LIMITS.metric_reasons):
        meter.begin().failed("INTERNAL", f"reason {i}")
        meter.call(f"Method/{i}", "OK")
    assert len(meter.durations) == len(meter.requests) == len(meter.calls) == LIMITS.metric_reasons + 1
    assert meter.calls["other", "OK"] == 9 * LIMITS.metric_reasons


def test_the_end_of_a_request_is_logged(meter: RequestMeter, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trireme_coordinator")
    times = meter.begin()
    clock.now += 2
    times.first_token()
    times.finished("eos", 1)
    (record,) = caplog.records
    assert record.fields == {"code": "OK", "reason": "eos", "seconds": 2, "first_token_seconds": 2}


def test_requests_are_counted_by_tenant_and_code(meter: RequestMeter) -> None:
    meter.begin("acme").finished("eos", 3)
    meter.begin("acme").failed("RESOURCE_EXHAUSTED", "OVERLOADED")
    meter.begin().finished("eos", 3)
    assert meter.tenants == {("acme", "OK"): 1, ("acme", "RESOURCE_EXHAUSTED"): 1, ("default", "OK"): 1}


def test_tenants_beyond_the_bound_are_counted_as_other(meter: RequestMeter) -> None:
    for i in range(LIMITS.metric_tenants + 5):
        meter.begin(f"tenant-{i}").finished("eos", 3)
    assert len(meter.tenants) == LIMITS.metric_tenants + 1
    assert meter.tenants["other", "OK"] == 5
