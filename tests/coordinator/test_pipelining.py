"""How well a pipeline of modelled stages is kept busy, on a virtual clock."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.support.modelled import Modelled, StageTime, line

from trireme_coordinator.scheduler import SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_coordinator.scheduler.cost import StepCost

MS = 1_000_000


def modelled(stages: list[StageTime], *, chunk: int = 256, slots: int = 64, hop_ns: int = 0) -> Modelled:
    config = SchedulerConfig(len(stages), slots, 1 << 20, 1 << 16, chunk, 1024, speculation=False)
    return Modelled(Scheduler(config), stages, hop_ns)


def request(tokens: int, max_tokens: int = 1 << 15) -> Sequence:
    return Sequence([1] * tokens, SamplingParams(0.0, 0, 1.0, 0), max_tokens)


def aggregate(stages: list[StageTime], streams: int, *, hop_ns: int = 0, tokens: int = 40_000) -> float:
    """Tokens a second of so many streams, once they all decode."""
    model = modelled(stages, slots=streams, hop_ns=hop_ns)
    requests = [request(4) for _ in range(streams)]
    for one in requests:
        model.arrive(0, one)
    started = model.run(lambda: all(one.generated for one in requests))
    before = sum(one.generated for one in requests)
    ended = model.run(lambda: sum(one.generated for one in requests) >= before + tokens)
    assert model.most_under_way <= len(stages) + 1
    return (sum(one.generated for one in requests) - before) / (ended - started) * 1e9


@pytest.mark.parametrize(("stages", "streams", "share"), [(4, 4, 0.95), (4, 5, 0.95), (4, 16, 0.95), (16, 16, 0.9)])
@pytest.mark.parametrize(("fixed", "per_token"), [(10 * MS, MS // 10), (10 * MS, 2 * MS), (0, 10 * MS)])
def test_stages_alike_are_kept_busy(stages: int, streams: int, share: float, fixed: int, per_token: int) -> None:
    """Ideal: the best that any number of micro-batches could do, without a moment lost."""
    sizes = {-(-streams // m) for m in range(1, stages + 2)}
    rounds = [
        max(stages * (fixed + per_token * rows), -(-streams // rows) * fixed + per_token * streams) for rows in sizes
    ]
    ideal = streams / min(rounds) * 1e9
    assert aggregate([line(fixed, per_token)] * stages, streams) >= share * ideal


def test_one_slow_stage_gets_larger_micro_batches() -> None:
    """Nine tenths of the time is the slow stage's: four micro-batches would make it read its weights four times."""
    stages = [line(MS, 0), line(MS, 0), line(30 * MS, MS // 10), line(MS, 0)]
    assert aggregate(stages, 8) >= 1.9 * 8 / (4 * (30 * MS + MS // 5)) * 1e9


def test_slow_wires_are_covered_by_one_more_micro_batch() -> None:
    """The wires of the round take as long as a stage; five micro-batches keep four stages busy."""
    assert aggregate([line(10 * MS, MS // 100)] * 4, 5, hop_ns=2 * MS) >= 0.95 * 1e9 / (10 * MS)


@pytest.mark.parametrize("attention", [0, 100])
def test_one_long_prompt_keeps_all_stages_busy(attention: int) -> None:
    """`attention`: nanoseconds a token and position it attends to."""

    def seconds(stages: int) -> float:
        def stage(batch: object) -> int:
            rows = batch.rows  # type: ignore[attr-defined]
            tokens = sum(row.count for row in rows)
            attended = sum(row.count * (row.position + row.count // 2) for row in rows)
            return (MS + MS * tokens // 4 + attention * attended) * 4 // stages

        model, long = modelled([stage] * stages), request(4096)
        model.arrive(0, long)
        return model.run(lambda: long.generated > 0) / 1e9

    assert seconds(4) <= (0.30 if not attention else 0.32) * seconds(1)


@pytest.mark.parametrize("stages", [1, 4, 16])
def test_decode_waits_for_one_chunk_of_a_long_prompt_at_most(stages: int) -> None:
    """Not even when prompts arrive while the pipeline is full of decode rows; and the prompts lose nothing by it."""
    streams = [request(4) for _ in range(2 * stages)]
    chunk_ns = (256 + len(streams)) * MS // 4  # all decode rows may go with one chunk
    model = modelled([line(0, MS // 4)] * stages)
    first, *prompts = [request(512, 1), request(16 * 256), request(16 * 256)]
    for one in (first, *streams):
        model.arrive(0, one)
    started = model.run(lambda: all(one.generated > 20 for one in streams))
    for one in prompts:
        model.arrive(started + 1, one)
    ended = model.run(lambda: all(one.generated for one in prompts))
    assert ended - started <= 1.05 * (32 + stages) * chunk_ns
    model.run(lambda: all(one.generated > 200 for one in streams))
    for one in streams:
        gaps = [b - a for a, b in pairwise(at for at in model.token_times[one] if at >= started)]
        assert max(gaps) <= (stages + 1.5) * chunk_ns, "its own chunk through every stage, and one before it"


def test_what_is_learnt_of_a_step() -> None:
    cost = StepCost(4)
    for i in range(400):
        n = 1 + i % 8
        cost.learn(n, [3 * MS, 5 * MS + n * MS, 3 * MS, 3 * MS], 20 * MS + n * MS)
    assert cost.fixed == pytest.approx(5 * MS, rel=0.01)
    assert cost.per_token == pytest.approx(MS, rel=0.01)
    assert cost.laps == pytest.approx(2.5, rel=0.2)
    cost.learn(500, [10**12] * 4, 10**13)  # a prefill chunk says nothing of decoding
    cost.learn(1, [0, 0, 0, 0], 0)
    assert cost.fixed == pytest.approx(5 * MS, rel=0.01)


def test_steps_of_one_size_keep_what_was_believed_of_a_token() -> None:
    cost = StepCost(2)
    for _ in range(100):
        cost.learn(10, [4 * MS, 2 * MS], 7 * MS)
    assert cost.time(10) == pytest.approx(4 * MS)
    assert cost.per_token * 10 == pytest.approx(2 * MS)


def test_rows_of_a_micro_batch() -> None:
    cost = StepCost(4)
    assert [cost.rows(n) for n in (0, 1, 4, 5, 8, 1000)] == [1, 1, 1, 2, 2, 250]
