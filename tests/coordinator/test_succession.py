"""What a successor makes of the workers that it finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.stages import Stages
from trireme_coordinator.succession import Succession, Wanted, placed_of
from trireme_proto.errors import PipelineUnavailable
from trireme_worker.actor import StageSettings

NODES = [Node(f"n{i}", f"node-{i}", f"10.0.0.{i}") for i in range(4)]
BY_ID = {node.node_id: node for node in NODES}
CUTS = [0, 4, 7, 10]


def settings(stage: Placed, host: str) -> StageSettings:
    first, end = stage.layers.start, stage.layers.stop
    return StageSettings("pack", "5a", first, end, 1, 64, "float32", "auto", 4, host, stage.node.node_id)


def told_of(stage: int, node: int) -> StageSettings:
    return settings(Placed(stage, range(CUTS[stage], CUTS[stage + 1]), NODES[node]), f"10.0.0.{node}")


class Workers:
    def __init__(self, told: dict[int, StageSettings]) -> None:
        self.told, self.log = told, list[str]()
        self.silent = 0  # launches that fail
        self.running = {stage: f"{each.host}:1" for stage, each in told.items()}

    def nodes(self) -> list[Node]:
        return list(NODES)

    def living(self) -> list[Node]:
        return list(NODES)

    def adopt(self, stages: int) -> dict[int, StageSettings]:
        self.log.append(f"adopt {stages}")
        return self.told

    def missing(self, placed: list[Placed]) -> list[int]:
        return [p.stage for p in placed if p.stage not in self.running]

    def launch(self, placed: list[Placed], _: object) -> list[str]:
        self.log.append("launch")
        if self.silent:
            self.silent -= 1
            raise PipelineUnavailable("A node went silent.")
        return [self.running.setdefault(p.stage, f"{p.node.address}:1") for p in placed]

    def discard(self, stages: list[int]) -> None:
        self.log.append(f"discard {stages}")

    def disown(self) -> None:
        self.log.append("disown")

    def end(self) -> None:
        self.log.append("end")
        self.running.clear()


def made(workers: Workers, *, shared: bool = True) -> tuple[Succession, Stages]:
    stages = Stages(workers, settings, lambda stage: 1)

    async def fresh() -> list[Placed]:
        return [Placed(n, range(CUTS[n], CUTS[n + 1]), NODES[n]) for n in range(3)]

    return Succession(workers, stages, Wanted(settings, 3, 10, shared), fresh, lambda line: None), stages


async def test_a_stage_that_moved_stays_where_it_is() -> None:
    workers = Workers({0: told_of(0, 0), 1: told_of(1, 3), 2: told_of(2, 2)})
    succession, stages = made(workers)
    await succession.begin()
    assert [(p.layers, p.node.name) for p in stages.placed] == [
        (range(4), "node-0"),
        (range(4, 7), "node-3"),
        (range(7, 10), "node-2"),
    ]
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.3:1", "10.0.0.2:1"]
    assert "end" not in workers.log


async def test_a_stage_that_was_lost_too_starts_where_there_is_a_place() -> None:
    workers = Workers({0: told_of(0, 0), 2: told_of(2, 2)})
    succession, stages = made(workers)
    await succession.begin()
    assert "launch" not in workers.log  # the engine's business, which tries again where there is no place yet
    assert await stages.launch() == ["10.0.0.0:1", "10.0.0.1:1", "10.0.0.2:1"]
    assert stages.placed[1] == Placed(1, range(4, 7), NODES[1])


@pytest.mark.parametrize("change", [{"threads": 2}, {"pack_sha256": "5b"}, {"kv_tokens": 65}])
async def test_stages_with_other_settings_are_replaced(change: dict[str, object]) -> None:
    workers = Workers({n: told_of(n, n) for n in range(3)})
    workers.told[1] = replace(workers.told[1], **change)  # type: ignore[arg-type]
    succession, stages = made(workers)
    await succession.begin()
    assert workers.log == ["adopt 3", "end", "launch"]
    assert len(stages.placed) == 3


@pytest.mark.parametrize("times", [2, 3])
async def test_a_start_is_tried_again_a_few_times(times: int) -> None:
    """Where a node fell silent meanwhile; the stages that did start may not be the same ones then."""
    workers = Workers({})
    workers.silent = times
    succession, stages = made(workers)
    if times < 3:
        await succession.begin()
        assert len(stages.placed) == 3
    else:
        with pytest.raises(PipelineUnavailable, match="silent"):
            await succession.begin()
    assert workers.log == ["adopt 3", "launch", "end", "launch", "end", "launch"]


async def test_a_coordinator_by_itself_looks_for_nobody() -> None:
    workers = Workers({})
    succession, stages = made(workers, shared=False)
    await succession.begin()
    assert workers.log == ["launch"]
    succession.disown()
    assert stages.placed == []


@pytest.mark.parametrize("left", [(), (0,), (2,), (1,)])
def test_what_cannot_be_told(left: tuple[int, ...]) -> None:
    """Two stages beside each other are lost; with the middle one left, both ends are known."""
    placed = placed_of({n: told_of(n, n) for n in left}, 3, 10, BY_ID)
    assert [p.layers for p in placed] == ([range(4), range(4, 7), range(7, 10)] if left == (1,) else [])


@pytest.mark.parametrize("layers", [9, 11])
def test_layers_of_another_model(layers: int) -> None:
    assert placed_of({n: told_of(n, n) for n in range(3)}, 3, layers, BY_ID) == []


def test_stages_that_do_not_fit_together() -> None:
    told = {n: told_of(n, n) for n in range(3)}
    told[1] = replace(told[1], first_layer=5)
    assert placed_of(told, 3, 10, BY_ID) == []
