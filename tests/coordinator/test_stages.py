"""The stages of a deployment through their losses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trireme_coordinator.loss import Cause, StageLoss
from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.stages import Stages
from trireme_proto.errors import PipelineUnavailable

NODES = [Node(f"id{i}", f"n{i}", f"10.0.0.{i}", memory_bytes=100) for i in range(3)]


class Workers:
    """Books of processes."""

    def __init__(self) -> None:
        self.nodes = NODES
        self.running: dict[int, str] = {}
        self.refuse = False

    def living(self) -> list[Node]:
        return list(self.nodes)

    def missing(self, placed: Sequence[Placed]) -> list[int]:
        return [p.stage for p in placed if p.stage not in self.running]

    def launch(self, placed: Sequence[Placed], settings: object) -> list[str]:
        if self.refuse:
            raise PipelineUnavailable("A worker is not there yet.")
        for p in placed:
            self.running.setdefault(p.stage, f"{p.node.address}:1")
        return [self.running[p.stage] for p in placed]

    def discard(self, stages: Sequence[int]) -> None:
        for stage in stages:
            self.running.pop(stage, None)


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def stages(workers: Workers) -> Stages:
    placed = [Placed(0, range(3), NODES[0]), Placed(1, range(3, 6), NODES[1])]
    stages = Stages(workers, lambda stage, host: pytest.fail("not asked for"), lambda stage: 60)
    stages.assign(placed)
    return stages


async def lose(stages: Stages, *lost: int) -> None:
    await stages.discard([StageLoss(stage, Cause.DEAD, 0.0) for stage in lost])


async def test_a_lost_stage_goes_where_there_is_a_place(workers: Workers, stages: Stages) -> None:
    shown = stages.placed
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.1:1"]
    await lose(stages, 1)
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.1:1"]
    workers.nodes = [NODES[0], NODES[2]]
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.1:1"]  # nothing is lost: nobody moves
    await lose(stages, 1)
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.2:1"]
    assert [p.node.name for p in shown] == ["n0", "n2"]  # whoever shows the stages sees it


async def test_it_waits_for_a_place_and_takes_it(workers: Workers, stages: Stages) -> None:
    await stages.launch()
    workers.nodes = [NODES[0]]
    await lose(stages, 1)
    for _ in range(2):
        with pytest.raises(PipelineUnavailable, match="room for stage 1"):
            await stages.launch()
    workers.nodes = [NODES[0], NODES[1]]
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.1:1"]


async def test_a_first_launch_that_fails_moves_nothing(workers: Workers, stages: Stages) -> None:
    workers.refuse, workers.nodes = True, [NODES[2]]
    with pytest.raises(PipelineUnavailable):
        await stages.launch()
    assert [p.node.name for p in stages.placed] == ["n0", "n1"]


async def test_a_stage_that_is_cut_off_from_its_neighbour_moves(workers: Workers, stages: Stages) -> None:
    await stages.launch()
    await stages.discard([StageLoss(1, Cause.CUT, 0.0)])
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.2:1"]
    await lose(stages, 1)
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.2:1"]  # a loss of another kind is made good where it was


async def test_it_stays_where_no_other_node_has_room(workers: Workers, stages: Stages) -> None:
    await stages.launch()
    workers.nodes = NODES[:2]
    await stages.discard([StageLoss(1, Cause.CUT, 0.0)])
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.1:1"]
