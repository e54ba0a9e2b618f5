"""`trireme bench pipeline`: real stages that sleep; bounds that hold however busy the machine is."""

from __future__ import annotations

import json

import pytest

from trireme_coordinator.bench.harness import harness
from trireme_coordinator.bench.pipeline import Plan, measure
from trireme_coordinator.commands import bench_pipeline
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.simulation import FixedStage
from trireme_proto.load import Arrival
from trireme_worker.synth.shapes import tiny

PLAN = Plan(
    stages=4, streams=4, step_s=0.03, token_s=0.0001, tokens=10, prompt=1024, prefill_chunk=32, load_seconds=1.0, seed=0
)


async def test_the_pipeline_beside_the_ideal_and_the_simulation() -> None:
    said: list[str] = []
    result = await measure(tiny(), PLAN, said.append)
    assert result.ideal_tokens_per_s == pytest.approx(4 / (4 * 0.03))
    assert 0 < result.of_ideal <= 1.02
    assert result.prefill_s is not None
    assert result.one_stage_prefill_s is not None
    assert result.one_stage_prefill_s > 32 * 0.0128  # what the one stage sleeps
    assert result.prefill_s.measured > 35 * 0.0032
    assert result.prefill_s.simulated >= 35 * 0.0032 + 5 * result.hop_ms / 1e3
    assert result.load is not None
    assert result.load["tokens/s"].simulated > 0
    assert len(said) == 5


async def test_refusals_and_answers_are_recorded() -> None:
    config = SchedulerConfig(stages=1, slots=1, pages=64, context=256, prefill_chunk=16, queue=1)
    async with harness(tiny(), [FixedStage(0.01, 0.0)], config) as running:
        records = await running.run([Arrival(0.0, 20, 3, 0)] * 4)
    assert sorted(record.error for record in records) == ["", "", "OVERLOADED", "OVERLOADED"]
    for record in records:
        assert record.ended is not None
        assert record.error or (record.tokens, record.completed) == (3, True)
        assert record.error or record.ttft >= 0.02  # two chunks


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"stages": 2, "streams": 2, "step_ms": 5.0, "tokens": 6, "prompt": 64, "load_seconds": 0.0}
    bench_pipeline(**options, token_ms=0.01, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["stages"], found["load"], found["step_ms"]) == (2, None, 5.0)
    assert found["of_ideal"] == pytest.approx(found["tokens_per_s"]["measured"] / found["ideal_tokens_per_s"])
    bench_pipeline(**options | {"prompt": 0}, token_ms=0.01)
    shown = capsys.readouterr().out
    assert "2 of 5 ms" in shown
    assert "tokens/s, 2 streams" in shown
    assert "prefill" not in shown
