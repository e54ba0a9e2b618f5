"""The simulation: times that can be worked out by hand, and what must hold for any load."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trireme_coordinator.placement.costs import Step
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.simulation import FixedStage, Pipeline, simulate, work_of
from trireme_coordinator.simulation.events import Events
from trireme_proto.load import Arrival, Objective
from trireme_worker.batch import Row

CONFIG = SchedulerConfig(stages=4, slots=64, pages=4096, context=8192, prefill_chunk=128, queue=64)


def pipeline(stages: int, stage: FixedStage, **config: int) -> Pipeline:
    return Pipeline(replace(CONFIG, stages=stages, **config), [stage] * stages, stage.latency_s)


def streams(count: int, *, prompt: int = 1, output: int = 20) -> list[Arrival]:
    return [Arrival(0.0, prompt, output, 0)] * count


def test_one_stream_passes_all_stages_and_links() -> None:
    """Four stages of 100 ms, links of 5 ms before, between and after them."""
    record = simulate([pipeline(4, FixedStage(0.1, 0.0, 0.005))], streams(1)).records[0]
    assert record.ttft == pytest.approx(4 * 0.1 + 5 * 0.005)
    assert record.itl == pytest.approx([0.425] * 19)


@pytest.mark.parametrize("stages", [1, 2, 4, 16])
def test_as_many_streams_as_stages_keep_all_of_them_busy(stages: int) -> None:
    outcome = simulate([pipeline(stages, FixedStage(0.1, 0.0))], streams(stages, output=100))
    assert outcome.figures.tokens_per_s == pytest.approx(10, rel=0.2)
    assert outcome.figures.bubble == pytest.approx(0, abs=0.2)
    assert outcome.records[0].itl == pytest.approx([stages * 0.1] * 99)


@pytest.mark.parametrize("stages", [1, 4])
def test_a_long_prompt_is_worked_on_by_all_stages(stages: int) -> None:
    """32 chunks of 128 tokens; the last one leaves the first stage after all of them, and has the others to pass."""
    stage = FixedStage(0.0, 0.001 / stages)
    record = simulate([pipeline(stages, stage)], streams(1, prompt=4096)).records[0]
    assert record.ttft == pytest.approx((32 + stages - 1) * 0.128 / stages)


def test_a_slow_link_sets_the_pace() -> None:
    stage = FixedStage(0.0, 0.001, token_transfer_s=0.003)
    record = simulate([pipeline(4, stage)], streams(1, prompt=4096)).records[0]
    assert record.ttft == pytest.approx(4 * 0.128 + 34 * 0.384)  # 32 chunks over the first link


def test_replicas_share_the_load_and_a_full_queue_refuses() -> None:
    one = pipeline(1, FixedStage(0.1, 0.0), slots=1, queue=2)
    alone, both = (simulate([one] * n, streams(9, output=5)).figures for n in (1, 2))
    assert (alone.completed, alone.failed) == (3, {"OVERLOADED": 6})
    assert (both.completed, both.failed) == (6, {"OVERLOADED": 3})
    assert both.tokens_per_s == pytest.approx(2 * alone.tokens_per_s)
    assert len(both.stages) == 2


def test_what_could_never_run_is_an_error_of_the_request() -> None:
    figures = simulate([pipeline(1, FixedStage(0.1, 0.0))], streams(2, prompt=9000)).figures
    assert (figures.completed, figures.failed) == (0, {"INVALID_REQUEST": 2})


def test_no_arrivals_are_no_load() -> None:
    assert simulate([pipeline(2, FixedStage(0.1, 0.0))], []).figures.requests == 0


def test_latencies_count_from_the_arrival() -> None:
    arrivals = [Arrival(5.0, 1, 2, 0), Arrival(5.0, 1, 2, 0)]
    outcome = simulate([pipeline(1, FixedStage(1.0, 0.0), slots=1)], arrivals, objective=Objective(ttft=1.0))
    assert [record.ttft for record in outcome.records] == pytest.approx([1.0, 3.0])
    assert outcome.figures.goodput_per_s == pytest.approx(1 / 9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3))
def test_every_token_comes_once_and_in_order(seed: int, stages: int, replicas: int) -> None:
    random = Random(seed)
    arrivals = [Arrival(random.random() * 5, random.randint(1, 400), random.randint(1, 30), 0) for _ in range(25)]
    arrivals.sort(key=lambda arrival: arrival.at)
    config = replace(CONFIG, stages=stages, slots=3, pages=60)
    times = [FixedStage(random.random() / 50, random.random() / 1000, random.random() / 100) for _ in range(stages)]
    outcome = simulate([Pipeline(config, times)] * replicas, arrivals)
    for arrival, record in zip(arrivals, outcome.records, strict=True):
        assert record.completed
        assert record.tokens == arrival.output
        assert record.times == sorted(record.times)
        assert record.ttft >= sum(max(stage.step_s, stage.token_s) for stage in times)
    assert all(0 <= stage.utilisation <= 1 + 1e-9 for stage in outcome.figures.stages)
    assert simulate([Pipeline(config, times)] * replicas, arrivals) == outcome


def test_work_counts_what_each_token_attends_to() -> None:
    rows = [Row(0, 0, 3), Row(1, 10, 1)]
    assert work_of(rows, 1) == Step(tokens=4, kv_tokens=3 + 11, attended=(1 + 2 + 3) + 11, sampled=1)


def test_what_is_over_cannot_happen_any_more() -> None:
    events, order = Events(), []
    events.at(2.0, lambda: order.append("late"))
    events.at(1.0, lambda: events.at(1.0, lambda: order.append("next")))
    events.at(1.0, lambda: order.append("same"))
    events.run()
    assert order == ["same", "next", "late"]
    with pytest.raises(ValueError, match="over"):
        events.at(1.5, lambda: None)
