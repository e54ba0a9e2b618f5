"""When a stage that answers is hung."""

from __future__ import annotations

import pytest

from trireme_coordinator.vigilance import HUNG_S, MOST_PATIENCE_S, PERIOD_S, Patience, Stillness


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
