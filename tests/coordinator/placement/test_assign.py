"""Assignments: held against every possible one on small cases."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.coordinator.placement.models import LAYER, MB, machine, model, ram_for

from trireme_coordinator.placement.assign import Assignment, Share, assign, best_in_order
from trireme_coordinator.placement.costs import StageCosts, decode_step

STEP = decode_step(1, 0)


def every_assignment(costs: StageCosts, stages: int | None) -> list[tuple[float, float]]:
    """(slowest, total) seconds of every way to give all layers to some machines in some order."""
    layers, found = costs.model.layers, []
    counts = range(1, min(layers, len(costs.machines)) + 1) if stages is None else [stages]
    for count in counts:
        for used in permutations(range(len(costs.machines)), count):
            for ends in combinations(range(1, layers), count - 1):
                cut = list(zip(used, pairwise([0, *ends, layers]), strict=True))
                if all(costs.fits(m, *layers_) for m, layers_ in cut):
                    times = [costs.seconds(m, *layers_) for m, layers_ in cut]
                    found.append((max(times), sum(times)))
    return found


MACHINES = st.lists(
    st.builds(
        lambda ram, read, hop: machine(ram_gb=ram_for(ram), read_gb_s=read, rtt_ms=hop),
        st.sampled_from([0.5, 1, 2, 3.5, 8]),
        st.sampled_from([0.5, 1.0, 3.0]),
        st.sampled_from([0.0, 15.0, 100.0]),
    ),
    min_size=1,
    max_size=4,
)
TABLES = st.sampled_from([0, 10 * MB, 20 * MB])


@given(machines=MACHINES, layers=st.integers(1, 5), embedding=TABLES, head=TABLES, stages=st.none() | st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_no_other_assignment_has_a_faster_slowest_stage_or_as_fast_a_one_and_a_shorter_way(
    machines: list, layers: int, embedding: int, head: int, stages: int | None
) -> None:
    asked = None if stages is None else min(stages, layers, len(machines))
    wanted = model(layers, embedding_bytes=embedding, head_bytes=head, head_read_bytes=head)
    costs = StageCosts(wanted, tuple(machines), STEP, 0)
    possible = every_assignment(costs, asked)
    found = assign(costs, asked)
    assert (found is None) == (not possible)
    if found is not None:
        check_whole(costs, found)
        slowest = min(each for each, _ in possible)
        assert found.slowest_s == pytest.approx(slowest, rel=1e-8)
        assert found.total_s == pytest.approx(min(t for s, t in possible if s <= slowest * (1 + 1e-8)), rel=1e-8)
        assert asked in {None, len(found.shares)}


def check_whole(costs: StageCosts, found: Assignment) -> None:
    """All layers in order, no machine twice, memory respected, times as they are."""
    assert [i for share in found.shares for i in share.layers] == list(range(costs.model.layers))
    assert len({share.machine for share in found.shares}) == len(found.shares)
    assert all(costs.fits(s.machine, s.layers.start, s.layers.stop) for s in found.shares)
    times = [costs.seconds(s.machine, s.layers.start, s.layers.stop) for s in found.shares]
    assert (found.slowest_s, found.total_s) == (max(times), sum(times))


def ranges(costs: StageCosts) -> list[tuple[str, int]]:
    """Names and numbers of layers."""
    found = assign(costs)
    assert found is not None
    return [(costs.machines[s.machine].name, len(s.layers)) for s in found.shares]


def test_a_machine_twice_as_fast_gets_twice_the_layers() -> None:
    costs = StageCosts(model(6), (machine("slow"), machine("fast", read_gb_s=2.0)), STEP, 0)
    assert sorted(ranges(costs)) == [("fast", 4), ("slow", 2)]


def test_memory_bounds_what_a_machine_gets() -> None:
    costs = StageCosts(model(6), (machine("slow"), machine("fast", read_gb_s=2.0, ram_gb=ram_for(3))), STEP, 0)
    assert sorted(ranges(costs)) == [("fast", 3), ("slow", 3)]


def test_room_for_keys_and_values_is_kept() -> None:
    tight = machine("tight", ram_gb=ram_for(4), read_gb_s=9.0)
    assert dict(ranges(StageCosts(model(6), (tight, machine()), STEP, 0)))["tight"] == 4
    assert dict(ranges(StageCosts(model(6), (tight, machine()), STEP, 4000)))["tight"] == 2


def test_who_can_hold_the_embedding_comes_first_and_who_reads_the_head_fast_comes_last() -> None:
    small = machine("small", ram_gb=ram_for(4))
    tables = {"embedding_bytes": 5 * LAYER, "head_bytes": LAYER, "head_read_bytes": LAYER}
    assert [name for name, _ in ranges(StageCosts(model(7, **tables), (small, machine("large")), STEP, 0))] == [
        "large",
        "small",
    ]
    quick = machine("quick", read_gb_s=1.5)
    tables = {"head_bytes": 4 * LAYER, "head_read_bytes": 4 * LAYER}
    assert ranges(StageCosts(model(6, **tables), (quick, machine("slow")), STEP, 0)) == [("slow", 4), ("quick", 2)]


def test_a_far_machine_is_passed_over() -> None:
    assert ranges(StageCosts(model(6), (machine("far", rtt_ms=200.0), machine("near")), STEP, 0)) == [("near", 6)]
    assert len(ranges(StageCosts(model(6), (machine("far", rtt_ms=40.0), machine("near")), STEP, 0))) == 2


def test_no_more_machines_are_used_than_make_it_faster() -> None:
    many = tuple(machine(f"m{i}", rtt_ms=1.0) for i in range(5))
    assert [n for _, n in ranges(StageCosts(model(6), many, STEP, 0))] == [2, 2, 2]


def test_the_order_is_kept_where_one_is_given() -> None:
    costs = StageCosts(model(6), (machine("a"), machine("b", read_gb_s=2.0)), STEP, 0)
    for order in ((0, 1), (1, 0)):
        found = best_in_order(costs, order)
        assert found is not None
        assert [share.machine for share in found.shares] == list(order)
    assert best_in_order(costs, (1,)) == Assignment((Share(1, range(6)),), *[costs.seconds(1, 0, 6)] * 2)


def test_nothing_fits() -> None:
    assert assign(StageCosts(model(6), (machine(ram_gb=ram_for(5)),), STEP, 0)) is None


@pytest.mark.parametrize("kinds", [1, 3, 9])
def test_a_large_fleet_is_placed(kinds: int) -> None:
    """Nine kinds are more than are tried in all pairs."""
    fleet = tuple(machine(f"m{i}", read_gb_s=1 + i % kinds, ram_gb=ram_for(10)) for i in range(100))
    costs = StageCosts(model(80, embedding_bytes=LAYER, head_bytes=LAYER, head_read_bytes=LAYER), fleet, STEP, 0)
    found = assign(costs)
    assert found is not None
    check_whole(costs, found)
    fastest = {1: 0.020, 3: 0.020 / 3, 9: 0.020 / 8}[kinds]
    assert found.slowest_s == pytest.approx(fastest, rel=0.12)
