"""Throughput before and after faults, and how long streams stood still, from made-up histories."""

from __future__ import annotations

import pytest
from tests.fault.history import CallBegan, CallEnded, Event, FaultBegan, FaultEnded, Left, Pace, Tokens
from tests.fault.rates import bursts, check_rates, recoveries, standstills

END = 60.0


def history(*, slow_from: float = 99.0, slow: float = 1.0, gap: float = 2.0, work: float = 0.0) -> list[Event]:
    """Ten tokens a second, a fault at 20 that stops them for `gap` seconds, and from `slow_from` on `slow` of the rate.
    `work`: the share of one core that somebody else takes from then on.
    """
    events: list[Event] = [CallBegan(0.0, 1, 0, "a", 600.0)]
    t, n = 0.0, 0
    while t < END:
        if not 20 <= t < 20 + gap:
            events.append(Tokens(round(t, 3), 1, n, (1,)))
            n += 1
        t += 0.1 / (slow if t >= slow_from else 1.0)
    events += [FaultBegan(20.0, 1, "worker-kill", "x"), FaultEnded(20.0, 1), CallEnded(END, 1, "OK")]
    if work:
        events += [Left(float(s), s - work * max(s - slow_from, 0)) for s in range(int(END) + 1)]
    return sorted(events, key=lambda event: event.t)


def test_a_rate_that_comes_back() -> None:
    (recovery,) = recoveries(history(), 0.0, END)
    assert recovery.judged
    assert recovery.undisturbed == pytest.approx(10, rel=0.05)
    assert recovery.seconds == pytest.approx(2.0, abs=0.3)
    assert check_rates(history(), 0.0, END) == []


@pytest.mark.parametrize("how", [{"gap": 11.0}, {"slow_from": 20.0, "slow": 0.85}], ids=["late", "less"])
def test_a_rate_that_does_not_come_back_in_time(how: dict[str, float]) -> None:
    (violation,) = check_rates(history(**how), 0.0, END)
    assert (violation.invariant, violation.t) == ("throughput", 20.0)
    assert "worker-kill" in violation.sentence


def test_somebody_elses_work_is_no_violation() -> None:
    assert check_rates(history(slow_from=20.0, slow=0.6), 0.0, END) != []
    assert check_rates(history(slow_from=20.0, slow=0.6, work=0.4), 0.0, END) == []


def test_a_violation_says_how_fast_the_machine_was() -> None:
    slow = history(slow_from=20.0, slow=0.85)
    assert check_rates(slow, 0.0, END)[0].sentence.endswith("85% of before.")
    paces = [Pace(float(s), 700.0 if s < 20 else 630.0) for s in range(60)]
    assert check_rates([*slow, *paces], 0.0, END)[0].sentence.endswith("of before, the machine's own pace 90%.")


def test_a_burst_without_time_to_recover_is_not_judged() -> None:
    (recovery,) = recoveries(history(gap=11.0), 0.0, 33.0)
    assert not recovery.judged
    assert check_rates(history(gap=11.0), 0.0, 33.0) == []


def test_faults_that_overlap_are_one_burst() -> None:
    events = [*history(), FaultBegan(25.0, 2, "redis-kill", "y"), FaultEnded(27.0, 2), FaultBegan(40.0, 3, "z", "z")]
    assert [(b.begun, b.healed, b.kinds) for b in bursts(events)] == [
        (20.0, 27.0, ("worker-kill", "redis-kill")),
        (40.0, float("inf"), ("z",)),
    ]


def test_how_long_a_stream_stood_still() -> None:
    ((fault, seconds),) = standstills(history(gap=3.0))
    assert fault.kind == "worker-kill"
    assert seconds == pytest.approx(3.0, abs=0.15)
    ((_, seconds),) = standstills(history(gap=0.0))
    assert seconds < 0.15
