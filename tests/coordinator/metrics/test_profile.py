"""What holds a pipeline back, out of two looks at its counters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trireme_coordinator.metrics.profile import Demand, Look, StageLook, look, profile, verdict
from trireme_coordinator.metrics.steps import StepMeter

S = 1_000_000_000
NOTHING = Look(0, 0, 0, 0, 0, ())
CALM = Demand(running=1, waiting=0, slots=64, kv_share=0.1, bandwidths=(40e9, 40e9))


def after(
    *stages: StageLook, steps: int = 1000, active: float = 9.0, step: float = 0.010, seconds: float = 10.0
) -> Look:
    return Look(int(seconds * S), steps, steps, int(active * S), int(steps * step * S), stages)


def found(last: Look, demand: Demand = CALM) -> tuple[str, int | None, str]:
    held = verdict(profile(NOTHING, last), demand)
    return held.bottleneck, held.stage, held.advice


def stage(busy: float, wire: float = 0.0, wait: float = 0.0, gb: float = 0.0) -> StageLook:
    return StageLook(int(busy * S), int(wait * S), int(wire * S), int(gb * 1e9))


def test_a_stage_that_reads_as_fast_as_it_can() -> None:
    bottleneck, where, advice = found(after(stage(2), stage(8.9, gb=8.9 * 36)))
    assert (bottleneck, where) == ("memory", 1)
    assert "90%" in advice


def test_a_stage_that_computes() -> None:
    bottleneck, where, advice = found(after(stage(8.9, gb=8.9 * 4), stage(2)))
    assert (bottleneck, where) == ("compute", 0)
    assert "only 10%" in advice


def test_a_stage_of_which_the_memory_is_not_known() -> None:
    bottleneck, _, advice = found(after(stage(8.9, gb=300)), replace(CALM, bandwidths=(0.0,)))
    assert bottleneck == "compute"
    assert "not measured" in advice


def test_one_stream_over_stages_that_take_turns() -> None:
    assert found(after(stage(4.0, gb=4.0 * 36), stage(4.2, gb=4.2 * 36)))[:2] == ("memory", 1)


def test_long_hops() -> None:
    bottleneck, where, advice = found(after(stage(1), stage(1, wire=6)))
    assert (bottleneck, where) == ("wire", 1)
    assert "6.00 ms" in advice


def test_a_slow_coordinator() -> None:
    assert found(after(stage(1), stage(1)))[:2] == ("scheduler", None)


@pytest.mark.parametrize(
    ("demand", "word"),
    [
        (replace(CALM, running=64, waiting=9), "slots"),
        (replace(CALM, running=5, waiting=9, kv_share=0.99), "KV pages"),
    ],
)
def test_a_full_house_with_time_left(demand: Demand, word: str) -> None:
    bottleneck, _, advice = found(after(stage(3), stage(3)), demand)
    assert bottleneck == "queue"
    assert "9 requests wait" in advice
    assert word in advice


def test_a_full_house_without_time_left() -> None:
    full = replace(CALM, running=64, waiting=9)
    assert found(after(stage(8.9), stage(3)), full)[:2] == ("compute", 0)


def test_idle_and_stalled() -> None:
    assert found(replace(NOTHING, at_ns=S), replace(CALM, running=0))[0] == "idle"
    assert found(replace(NOTHING, at_ns=S))[0] == "stalled"
    assert found(after(stage(0.1), steps=3, active=0.1))[0] == "idle"


def test_figures_of_the_time_in_between() -> None:
    first = after(stage(2, 1, 1, 10), steps=100, active=3)
    last = Look(20 * S, 200, 350, 8 * S, 100 * S // 100 + 3 * S, (stage(4, 1.5, 2, 90),))
    between = profile(first, last)
    assert between.seconds == pytest.approx(10)
    assert (between.steps, between.tokens) == (100, 250)
    assert between.active == pytest.approx(0.5)
    assert between.stages[0].busy == pytest.approx(0.4)
    assert between.stages[0].bubble == pytest.approx(0.6)
    assert between.stages[0].compute_s == pytest.approx(0.02)
    assert between.stages[0].read_bytes_per_s == pytest.approx(40e9)
    assert between.step_s == pytest.approx(0.03)
    assert between.other_s == 0


def test_what_is_outside_of_the_stages() -> None:
    last = after(stage(2, wire=1, wait=3), steps=1000, active=9, step=0.01)
    assert profile(NOTHING, last).other_s == pytest.approx(0.004)


def test_a_look_at_a_meter() -> None:
    assert look(StepMeter(), 5) == Look(5, 0, 0, 0, 0, ())
