"""Where a lost stage goes."""

from __future__ import annotations

import pytest

from trireme_coordinator.placement import Node, Placed, relocate
from trireme_proto.errors import PipelineUnavailable

GB = 10**9
NODES = [Node(f"id{i}", f"n{i}", f"10.0.0.{i}", f"h{i}", 10 * GB) for i in range(4)]
PLACED = [Placed(i, range(2 * i, 2 * i + 2), NODES[i]) for i in range(3)]
NEEDED = [4 * GB] * 3


def where(placed: list[Placed]) -> list[str]:
    assert [(p.stage, p.layers) for p in placed] == [(p.stage, p.layers) for p in PLACED]
    return [p.node.name for p in placed]


def test_back_to_its_node_while_that_lives() -> None:
    assert where(relocate(PLACED, [1, 2], NODES, NEEDED)) == ["n0", "n1", "n2"]


def test_to_the_spare_node() -> None:
    assert where(relocate(PLACED, [1], [NODES[0], NODES[2], NODES[3]], NEEDED)) == ["n0", "n3", "n2"]


def test_beside_another_stage_where_there_is_room() -> None:
    assert where(relocate(PLACED, [1], [NODES[0], NODES[2]], [5 * GB, 4 * GB, 7 * GB])) == ["n0", "n0", "n2"]


def test_two_at_once_share_what_is_there() -> None:
    assert where(relocate(PLACED, [1, 2], [NODES[0], NODES[3]], NEEDED)) == ["n0", "n3", "n0"]


def test_a_stage_that_stays_at_home_counts_before_one_that_moves_in() -> None:
    assert where(relocate(PLACED, [0, 2], [NODES[1], NODES[2]], [7 * GB, 7 * GB, 3 * GB])) == ["n2", "n1", "n2"]


def test_no_room_anywhere() -> None:
    with pytest.raises(PipelineUnavailable, match="room for stage 1"):
        relocate(PLACED, [1], [NODES[0], NODES[2]], [7 * GB] * 3)
    with pytest.raises(PipelineUnavailable, match="room for stage 0"):
        relocate(PLACED, [0, 1, 2], [], NEEDED)


def test_memory_that_is_not_known_is_enough() -> None:
    nameless = Node("x", "x", "10.0.0.9")
    assert where(relocate(PLACED, [1], [NODES[0], NODES[2], nameless], [100 * GB] * 3)) == ["n0", "x", "n2"]
