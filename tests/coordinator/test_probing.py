"""Stages go where the measured nodes are best at them; evenly where there is no difference to speak of."""

from __future__ import annotations

from typing import Any

import pytest
from tests.coordinator.placement.models import model

from trireme_coordinator.config import ServeConfig
from trireme_coordinator.placement import Node
from trireme_coordinator.placing import place_evenly, place_on
from trireme_coordinator.probing import alike, machine_of, named, place_measured
from trireme_proto.errors import PipelineUnavailable
from trireme_worker.pack import Pack, default_pack
from trireme_worker.probe import Measured

NODES = [Node(f"id{i}", f"node-{i}", f"10.0.0.{i}", f"host-{i}") for i in range(3)]


def measured(*read_gb_s: float) -> dict[str, Measured]:
    return {f"id{i}": Measured(64.0, read, 1e4, 8) for i, read in enumerate(read_gb_s)}


def test_alike_is_within_what_a_measurement_is_worth() -> None:
    assert alike([machine_of(name, each) for name, each in measured(1.0, 1.15, 1.19).items()])
    assert not alike([machine_of(name, each) for name, each in measured(1.0, 1.25).items()])


def test_the_best_nodes_get_the_stages_by_what_they_can_do() -> None:
    placed = place_measured(model(6), NODES, measured(1.0, 0.3, 2.0), 2)
    assert {p.node.name: len(p.layers) for p in placed} == {"node-0": 2, "node-2": 4}
    assert [p.stage for p in placed] == [0, 1]
    assert [i for p in placed for i in p.layers] == list(range(6))


def test_names_are_made_different() -> None:
    nodes = [Node("id0", "same", "10.0.0.1"), Node("id1", "same", "10.0.0.2"), Node("id2", "", "10.0.0.3")]
    assert [machine.name for machine in named(nodes, measured(1, 1, 1))] == ["same", "id1", "id2"]


class Cluster:
    """As much of a RayCluster as placement asks for."""

    def __init__(self, nodes: list[Node], found: dict[str, Measured] | None) -> None:
        self._nodes, self._found, self.measurements = nodes, found, 0

    def nodes(self) -> list[Node]:
        return self._nodes

    def measure(self, _nodes: list[Node], _threads: int) -> dict[str, Measured]:
        self.measurements += 1
        if self._found is None:
            raise PipelineUnavailable("The nodes could not be measured.")
        return self._found


def placed_on(cluster: Any, stages: int) -> tuple[list[tuple[str, int]], list[str]]:
    pack, said = Pack.open(default_pack(), verify=False), []
    placed = place_on(ServeConfig(stages=stages), pack, cluster, cluster.nodes(), model(6, context=256), said.append)
    return [(p.node.name, len(p.layers)) for p in placed], said


def test_unlike_machines_are_measured_and_used_by_what_they_can_do() -> None:
    placed, said = placed_on(Cluster(NODES, measured(1.0, 0.3, 2.0)), 2)
    assert sorted(placed) == [("node-0", 2), ("node-2", 4)]
    assert said == ["Measuring 3 nodes"]


@pytest.mark.parametrize(
    ("nodes", "found", "stages", "measurements"),
    [
        (NODES, measured(1.0, 1.1, 1.05), 2, 1),  # no difference
        ([Node(n.node_id, n.name, n.address, "one") for n in NODES], measured(1.0, 0.3, 2.0), 2, 0),  # one machine
        (NODES[:1], measured(1.0), 1, 0),  # no choice
        (NODES, measured(1.0, 0.3, 2.0), 4, 0),  # several stages on a node
        (NODES, None, 2, 1),  # it cannot be known
    ],
)
def test_else_they_are_used_evenly(nodes, found, stages, measurements) -> None:
    cluster = Cluster(nodes, found)
    placed, said = placed_on(cluster, stages)
    evenly = place_evenly(ServeConfig(stages=stages), Pack.open(default_pack(), verify=False), nodes)
    assert placed == [(p.node.name, len(p.layers)) for p in evenly]
    assert cluster.measurements == measurements
    if found is None:
        assert said[-1] == "The nodes could not be measured. Layers are placed evenly"
