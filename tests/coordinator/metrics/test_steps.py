"""The counters on the token's path, from steps made by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trireme_coordinator.metrics.steps import StepMeter
from trireme_coordinator.scheduler import Batch, Row, SamplingParams, Sequence
from trireme_proto.limits import LIMITS

MS = 1_000_000


@dataclass(frozen=True)
class Timing:
    wire_ns: int
    wait_ns: int
    compute_ns: int


def sequence(tenant: str = "") -> Sequence:
    return Sequence([1, 2, 3], SamplingParams(0.0, 0, 1.0, 0), 100, tenant=tenant)


def batch(*sequences: Sequence, prefill: bool = False, drafts: tuple[int, ...] = ()) -> Batch:
    count = 3 if prefill else 1 + len(drafts)
    rows = tuple(Row(s, i, 0, count, True, prefill, 1, drafts) for i, s in enumerate(sequences))
    return Batch(1, (), (), rows, (7,) * count * len(rows))


@pytest.fixture
def meter() -> StepMeter:
    return StepMeter()


def test_intervals_of_sequences_that_decode_together(meter: StepMeter) -> None:
    both = [sequence(), sequence()]
    meter.stepped(batch(*both, prefill=True), 2, {s: [5] for s in both}, (), 1 * MS, 10 * MS)
    assert meter.inter_token.count == 0
    meter.stepped(batch(*both), 2, {s: [5] for s in both}, (), 11 * MS, 14 * MS)
    assert meter.inter_token.count == 2
    assert meter.inter_token.total == pytest.approx(0.008)
    assert meter.prompt_tokens == 6
    assert meter.generation_tokens == 4


def test_intervals_of_sequences_whose_tokens_came_at_different_times(meter: StepMeter) -> None:
    first, second = sequence(), sequence()
    meter.stepped(batch(first, prefill=True), 1, {first: [5]}, (), 0, 10 * MS)
    meter.stepped(batch(second, prefill=True), 1, {second: [5]}, (), 10 * MS, 20 * MS)
    meter.stepped(batch(first, second), 2, {first: [5], second: [5]}, (), 20 * MS, 25 * MS)
    assert meter.inter_token.total == pytest.approx(0.015 + 0.005)
    assert meter.inter_token.count == 2


def test_tokens_that_came_together_share_their_interval(meter: StepMeter) -> None:
    one, other = sequence(), sequence()
    meter.stepped(batch(one, other, prefill=True), 2, {one: [5], other: [5]}, (), 0, 10 * MS)
    meter.stepped(batch(one, other, drafts=(6, 7)), 6, {one: [6, 7, 8], other: [6]}, (), 10 * MS, 19 * MS)
    assert meter.inter_token.count == 4
    assert meter.inter_token.total == pytest.approx(0.009 + 0.009)
    assert (meter.drafted, meter.accepted) == (4, 2)


def test_a_pause_does_not_count_as_active(meter: StepMeter) -> None:
    one = sequence()
    meter.stepped(batch(one, prefill=True), 1, {one: [5]}, [Timing(0, 0, 6 * MS)], 0, 10 * MS)
    meter.stepped(batch(one), 1, {one: [5]}, [Timing(0, 0, 3 * MS)], 110 * MS, 115 * MS)
    assert meter.active_ns == 15 * MS
    assert meter.bubble_ns(0) == 6 * MS


def test_steps_that_overlap_count_once(meter: StepMeter) -> None:
    one, other = sequence(), sequence()
    meter.stepped(batch(one, prefill=True), 1, {one: [5]}, (), 0, 10 * MS)
    meter.stepped(batch(other, prefill=True), 1, {other: [5]}, (), 2 * MS, 12 * MS)
    assert meter.active_ns == 12 * MS
    assert meter.step_ns == 20 * MS


def test_stages(meter: StepMeter) -> None:
    meter.step_bytes = [(1000, 1000), (500, 1700)]
    one = sequence()
    timings = [Timing(1 * MS, 2 * MS, 3 * MS), Timing(4 * MS, 5 * MS, 6 * MS)]
    meter.stepped(batch(one, prefill=True), 0, {}, timings, 0, 21 * MS)
    meter.stepped(batch(one), 1, {one: [5]}, timings, 21 * MS, 42 * MS)
    first, last = meter.stages
    assert (first.busy_ns, first.wait_ns, first.wire_ns, first.weight_bytes) == (6 * MS, 4 * MS, 2 * MS, 2000)
    assert (last.busy_ns, last.weight_bytes) == (12 * MS, 2200)
    assert last.hops.count == 2
    assert last.hops.counts[last.hops.bounds.index(0.005)] == 2
    assert meter.steps == {"prefill": 1, "decode": 1, "mixed": 0}
    assert (meter.prefill_tokens, meter.decode_tokens) == (3, 1)


def test_a_bubble_never_shrinks(meter: StepMeter) -> None:
    """Computation of a step under way is told later, all at once."""
    one = sequence()
    meter.stepped(batch(one, prefill=True), 1, {one: [5]}, [Timing(0, 0, 1 * MS)], 0, 10 * MS)
    assert meter.bubble_ns(0) == 9 * MS
    meter.stepped(batch(one), 1, {one: [5]}, [Timing(0, 0, 9 * MS)], 1 * MS, 11 * MS)
    assert meter.bubble_ns(0) == 9 * MS


def test_a_frame_without_rows_is_no_step(meter: StepMeter) -> None:
    meter.stepped(Batch(1, (), (3,), (), ()), 0, {}, [Timing(1, 1, 1)], 0, MS)
    assert meter.count == 0
    assert meter.stages == []


def test_tenants_are_bounded(meter: StepMeter) -> None:
    for i in range(10 * LIMITS.metric_tenants):
        one = sequence(f"tenant-{i}" if i % 2 else "x" * (200 + i))
        meter.stepped(batch(one, prefill=True), 1, {one: [5]}, (), i * MS, (i + 1) * MS)
    assert len(meter.tenants) == LIMITS.metric_tenants + 1
    assert sum(tokens.generation for tokens in meter.tenants.values()) == 10 * LIMITS.metric_tenants
    assert not [name for name in meter.tenants if name.startswith("x")]
