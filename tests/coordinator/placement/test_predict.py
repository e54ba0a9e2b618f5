"""Predictions, beside what a person works out by hand."""

from __future__ import annotations

import pytest
from tests.coordinator.placement.models import LAYER, machine, model, ram_for

from trireme_coordinator.placement.assign import Share
from trireme_coordinator.placement.costs import StageCosts, decode_step, prefill_step
from trireme_coordinator.placement.predict import Prediction, Wishes, predict

WISHES = Wishes(prompt=100, context=200, prefill_chunk=50, slots=4)


def predicted(wanted, machines, *ends: int, wishes: Wishes = WISHES) -> Prediction:
    shares = [Share(i, range(a, b)) for i, (a, b) in enumerate(zip((0, *ends), ends, strict=False))]
    return predict(wanted, tuple(machines), shares, wishes)


def test_a_step_takes_as_long_as_its_bytes_or_its_multiply_adds() -> None:
    reads = StageCosts(model(6), (machine(),), decode_step(1, 0), 0)
    assert reads.compute_s(0, 0, 6) == pytest.approx(0.060)
    computes = StageCosts(model(6, layer_macs=(18 * 10**9,) * 6), (machine(int8_gmac_s=1000.0),), decode_step(3, 0), 0)
    assert computes.compute_s(0, 1, 3) == pytest.approx(2 * 3 * 0.020)


def test_attention_and_head_come_on_top() -> None:
    wanted = model(2, head_read_bytes=3 * LAYER, kv_bytes=LAYER // 100)
    step = StageCosts(wanted, (machine(),), decode_step(2, 100), 0)
    assert step.compute_s(0, 0, 2) == pytest.approx(2 * (0.010 + 0.020) + 0.030)
    assert step.compute_s(0, 0, 1) == pytest.approx(0.030)
    chunk = StageCosts(wanted, (machine(),), prefill_step(0, 50, last=False), 0)
    assert chunk.compute_s(0, 0, 2) == pytest.approx(2 * (0.010 + 0.005))


def test_a_prompt_attends_to_itself() -> None:
    assert prefill_step(10, 3, last=True) == type(decode_step(1, 1))(3, 13, 11 + 12 + 13, 1)


def test_a_hop_is_half_a_round_trip_and_the_frame_on_the_link() -> None:
    assert machine(rtt_ms=4.0, link_gbit_s=0.032).hop_s(4000) == pytest.approx(0.002 + 0.001)


def test_one_stream_takes_all_stages_in_turn_and_many_keep_all_of_them_busy() -> None:
    found = predicted(model(6), [machine("a"), machine("b")], 3, 6)
    assert found.tokens_per_s_single == pytest.approx(1 / 0.0613, rel=0.01)
    assert [each.sequences for each in found.batches] == [1, 2, 4]
    assert found.batches[1].tokens_per_s == pytest.approx(2 / 0.061, rel=0.03)  # both stages busy
    assert found.batches[2].tokens_per_s == pytest.approx(4 / 0.066, rel=0.06)  # two rows a step, for little more
    assert found.tokens_per_s_aggregate == found.batches[2].tokens_per_s
    assert [stage.seconds for stage in found.stages] == pytest.approx([0.0307, 0.0307], rel=0.01)


def test_micro_batches_keep_stages_busy_where_rows_cost_time() -> None:
    """Reading is shared by the rows of a step, multiplying is not: only in turns do both stages work all the time."""
    busy = model(6, layer_bytes=(1,) * 6, layer_macs=(9 * 10**9,) * 6, kv_bytes=1)
    machines = [machine("a", int8_gmac_s=1000.0), machine("b", int8_gmac_s=1000.0)]
    found = predicted(busy, machines, 3, 6)
    assert found.tokens_per_s_single == pytest.approx(1 / 0.060, rel=0.01)
    assert found.batches[1].tokens_per_s == pytest.approx(2 / 0.060, rel=0.01)


def test_the_slowest_stage_sets_the_pace() -> None:
    busy = model(6, layer_bytes=(1,) * 6, layer_macs=(9 * 10**9,) * 6, kv_bytes=1)
    machines = [machine("a", int8_gmac_s=1000.0), machine("b", int8_gmac_s=1000.0)]
    assert predicted(busy, machines, 1, 6).tokens_per_s_aggregate == pytest.approx(1 / 0.050, rel=0.01)


def test_a_long_way_round_needs_more_streams() -> None:
    near, far = (predicted(model(6), [machine(rtt_ms=ms), machine("b", rtt_ms=ms)], 3, 6) for ms in (0.0, 100.0))
    assert near.tokens_per_s_single - far.tokens_per_s_single == pytest.approx(1 / 0.0604 - 1 / 0.2104, rel=0.02)
    assert far.batches[1].tokens_per_s == pytest.approx(2 / 0.2104, rel=0.02)  # nobody is busy all the time


def test_chunks_of_a_prompt_follow_each_other_through_the_stages() -> None:
    busy = model(6, layer_macs=(18 * 10**7,) * 6, kv_bytes=1)
    machines = [machine("a", int8_gmac_s=1000.0), machine("b", int8_gmac_s=1000.0)]
    found = predicted(busy, machines, 3, 6)
    stage = 3 * 50 * 0.18 / 900
    assert found.ttft_s == pytest.approx(3 * stage, rel=0.01)  # 2 chunks over 2 stages: stage 0, both, stage 1
    whole = predicted(busy, machines, 3, 6, wishes=Wishes(prompt=100, context=200, prefill_chunk=100, slots=4))
    assert whole.ttft_s == pytest.approx(4 * stage, rel=0.01)


def test_the_last_chunk_is_what_is_left() -> None:
    busy = model(1, layer_macs=(9 * 10**8,), layer_bytes=(1,), kv_bytes=1)
    wishes = Wishes(prompt=60, context=200, prefill_chunk=50, slots=4)
    assert predicted(busy, [machine(int8_gmac_s=1000.0)], 1, wishes=wishes).ttft_s == pytest.approx(0.060, rel=0.01)


def test_memory_left_is_room_for_keys_and_values_of_the_tightest_stage() -> None:
    machines = [machine("a", ram_gb=ram_for(2, 500)), machine("b", ram_gb=ram_for(4, 300))]
    found = predicted(model(6), machines, 2, 6)
    assert [stage.kv_tokens for stage in found.stages] == [500, 300]
    assert found.kv_tokens == 300
    assert [each.sequences for each in found.batches] == [1]  # 300 tokens hold one sequence of 200
    assert found.stages[0].ram_bytes + found.stages[0].free_bytes == machines[0].ram_bytes


def test_a_table_in_embedding_and_head_is_held_once() -> None:
    tied = model(2, embedding_bytes=LAYER, head_bytes=LAYER, shared_bytes=LAYER)
    costs = StageCosts(tied, (machine(),), decode_step(1, 0), 0)
    assert costs.needed(0, 2) - costs.needed(0, 1) == LAYER  # a layer more, the same table
    assert costs.needed(1, 2) == costs.needed(0, 1)
