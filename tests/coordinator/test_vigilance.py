"""When a stage that answers is hung."""

from __future__ import annotations

import pytest

from trireme_coordinator.vigilance import HUNG_S, MOST_PATIENCE_S, PERIOD_S, Flow, Patience, Pulse, Stillness


def run(still: Stillness, begin: float, seconds: float, *, busy: bool = True, progress: int = 0) -> float | None:
    """When a stage is found hung that says the same from `begin` on for so long; None if it is not."""
    now = begin
    while now <= begin + seconds:
        if still.take(now, busy=busy, progress=(progress,)):
            return now
        now += PERIOD_S
    return None


def test_no_progress_while_it_computes() -> None:
    found = run(Stillness(Patience(), 0.0), 10.0, 60.0)
    assert found is not None
    assert HUNG_S <= found - 10.0 <= HUNG_S + PERIOD_S < 1.0


def test_idle_for_however_long() -> None:
    still = Stillness(Patience(), 0.0)
    assert run(still, 0.0, 500.0, busy=False) is None
    assert run(still, 500.1, HUNG_S - PERIOD_S) is None  # the idle time does not count


def test_progress_for_however_long() -> None:
    still = Stillness(Patience(), 0.0)
    assert not any(still.take(i * PERIOD_S, busy=True, progress=(i,)) for i in range(1000))


def test_it_may_take_longer_than_it_ever_took() -> None:
    patience = Patience()
    still = Stillness(patience, 0.0)
    still.take(0.0, busy=True, progress=(1,))
    still.take(0.6, busy=True, progress=(1,))
    still.take(0.8, busy=True, progress=(2,))
    assert patience.longest_s == pytest.approx(0.6)
    assert patience.limit_s(1.0) == pytest.approx(1.8)
    assert patience.limit_s(1.0) <= MOST_PATIENCE_S


def test_each_verdict_doubles_the_patience_for_a_while() -> None:
    patience = Patience()
    limits = [run(Stillness(patience, 0.0), 10.0 * i, 60.0) for i in range(3)]
    assert limits[2] is not None
    assert 4 * HUNG_S <= limits[2] - 20.0 <= 4 * HUNG_S + 2 * PERIOD_S
    assert patience.limit_s(500.0) == HUNG_S
    for i in range(20):
        patience.condemned(float(i))
    assert patience.limit_s(20.0) == MOST_PATIENCE_S


def watched(
    flow: Flow, begin: float, seconds: float, *pulses: Pulse, under_way: bool = True
) -> tuple[float, int] | None:
    """When a cut is found among stages that say the same from `begin` on, and which stage it cuts off."""
    now = begin
    while now <= begin + seconds:
        for stage, pulse in enumerate(pulses):
            found = flow.take(now, stage, pulse, under_way=under_way)
            if found is not None:
                return now, found
        now += PERIOD_S
    return None


@pytest.mark.parametrize(
    ("steps", "stage"),
    [((5, 4, 4), 1), ((5, 5, 4), 2), ((5, 4, 3), 1), ((5, 5, 5), 2), ((0, 0, 0), 2)],
)
def test_frames_that_do_not_arrive(steps: tuple[int, ...], stage: int) -> None:
    found = watched(Flow(3, Patience(), 0.0), 10.0, 60.0, *(Pulse(n) for n in steps))
    assert found is not None
    assert found[1] == stage
    assert HUNG_S <= found[0] - 10.0 <= HUNG_S + PERIOD_S < 1.0


def test_nothing_is_cut_while_a_stage_computes_or_nothing_is_under_way() -> None:
    flow = Flow(2, Patience(), 0.0)
    assert watched(flow, 0.0, 100.0, Pulse(5, busy=True), Pulse(4)) is None
    assert watched(flow, 200.0, 100.0, Pulse(5), Pulse(4), under_way=False) is None
    assert watched(flow, 300.1, HUNG_S - PERIOD_S, Pulse(5), Pulse(4)) is None  # the time before does not count


def test_nothing_is_cut_while_any_stage_gets_on() -> None:
    flow = Flow(2, Patience(), 0.0)
    for i in range(1000):
        assert flow.take(i * PERIOD_S, 0, Pulse(5 + i // 2), under_way=True) is None
        assert flow.take(i * PERIOD_S, 1, Pulse(4, progress=i % 2), under_way=True) is None


def test_a_cut_doubles_the_patience_for_a_while() -> None:
    patience = Patience()
    found = [watched(Flow(2, patience, 0.0), 10.0 * i, 60.0, Pulse(2), Pulse(1)) for i in range(2)]
    first, second = (at - 10.0 * i for i, (at, _) in enumerate(filter(None, found)))
    assert first < 2 * HUNG_S <= second + 1e-9 < 2 * HUNG_S + 2 * PERIOD_S
