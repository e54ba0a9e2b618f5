"""Layers over nodes: as even as can be, in order, spread."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trireme_coordinator.placement import Node, partition, place
from trireme_proto.errors import ConfigurationError

COSTS = st.lists(st.integers(0, 50), min_size=1, max_size=9)


def all_cuts(n: int, parts: int) -> list[list[range]]:
    """Every way to cut n items into non-empty ranges."""
    return [[range(a, b) for a, b in pairwise([0, *ends, n])] for ends in combinations(range(1, n), parts - 1)]


@given(costs=COSTS, parts=st.integers(1, 9))
@settings(deadline=None)
def test_the_slowest_part_is_as_fast_as_in_any_other_cut(costs: list[int], parts: int) -> None:
    parts = min(parts, len(costs))
    cuts = all_cuts(len(costs), parts)
    best = min(max(sum(costs[i] for i in part) for part in cut) for cut in cuts)
    found = partition(costs, parts)
    assert found in cuts
    assert max(sum(costs[i] for i in part) for part in found) == best


@pytest.mark.parametrize(
    ("costs", "parts", "ends"),
    [
        ([1] * 6, 2, [3, 6]),
        ([1] * 7, 3, [2, 4, 7]),
        ([1, 1, 1, 9], 2, [3, 4]),
        ([9, 1, 1, 1], 2, [1, 4]),
        ([5], 1, [1]),
        ([0, 0, 0], 3, [1, 2, 3]),
        ([1] * 80, 8, list(range(10, 81, 10))),
    ],
)
def test_cuts(costs: list[int], parts: int, ends: list[int]) -> None:
    assert [part.stop for part in partition(costs, parts)] == ends


@pytest.mark.parametrize("parts", [0, -1, 4])
def test_parts_that_are_not_possible(parts: int) -> None:
    with pytest.raises(ConfigurationError, match=f"^{parts} stages are not possible: the model has 3 layers"):
        partition([1, 2, 3], parts)


def nodes(count: int) -> list[Node]:
    return [Node(f"id{i}", f"node-{i:02}", f"10.0.0.{i}") for i in range(count)]


@pytest.mark.parametrize(
    ("stages", "count", "used"),
    [
        (1, 3, [0]),
        (3, 3, [0, 1, 2]),
        (2, 3, [0, 1]),
        (4, 2, [0, 0, 1, 1]),
        (5, 2, [0, 0, 0, 1, 1]),
        (6, 4, [0, 0, 1, 2, 2, 3]),
        (4, 1, [0, 0, 0, 0]),
    ],
)
def test_stages_spread_over_nodes_with_neighbours_together(stages: int, count: int, used: list[int]) -> None:
    placed = place([10] * 8, 0, nodes(count)[::-1], stages)
    assert [p.node.node_id for p in placed] == [f"id{i}" for i in used]
    assert [p.stage for p in placed] == list(range(stages))
    assert [i for p in placed for i in p.layers] == list(range(8))


@given(stages=st.integers(1, 30), count=st.integers(1, 12))
@settings(deadline=None)
def test_no_node_has_two_stages_more_than_another(stages: int, count: int) -> None:
    placed = place([1] * 30, 0, nodes(count), stages)
    loads = [sum(p.node == node for p in placed) for node in nodes(count)]
    assert max(loads) - min(loads) <= 1
    assert [p.node.node_id for p in placed] == sorted((p.node.node_id for p in placed), key=lambda i: int(i[2:]))


def test_the_head_counts_as_part_of_the_last_layer() -> None:
    assert [p.layers.stop for p in place([10] * 6, 20, nodes(2), 2)] == [4, 6]
    assert [p.layers.stop for p in place([10] * 6, 0, nodes(2), 2)] == [3, 6]


def test_nowhere_to_place_anything() -> None:
    with pytest.raises(ConfigurationError, match="no node"):
        place([1], 0, [], 1)
