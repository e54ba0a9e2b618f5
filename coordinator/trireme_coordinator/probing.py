"""From what workers measured to where the stages go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from trireme_coordinator.placement import Machine, ModelCosts, Node, Placed, plan, wishes_for
from trireme_worker.probe import Measured

_ALIKE = 1.2
"""Nodes whose rates differ by less than this factor get layers evenly: a measurement is no better than that."""


def machine_of(name: str, measured: Measured) -> Machine:
    """The node of that name; numbers rounded to what the measurement is worth."""
    return Machine(
        name=name,
        ram_gb=round(measured.ram_gb, 2),
        read_gb_s=round(measured.read_gb_s, 2),
        int8_gmac_s=round(measured.int8_gmac_s, 1),
        cores=measured.cores,
    )


def alike(machines: Sequence[Machine]) -> bool:
    """Whether machines are as good as equal to each other."""
    figures: tuple[Callable[[Machine], float], ...] = (lambda m: m.read_gb_s, lambda m: m.int8_gmac_s)
    return all(max(map(of, machines)) <= _ALIKE * min(map(of, machines)) for of in figures)


def place_measured(
    model: ModelCosts, nodes: Sequence[Node], measured: Mapping[str, Measured], stages: int
) -> list[Placed]:
    """`stages` stages on as many of the nodes, by what each can do. `measured`: by node id. ConfigurationError where
    that is not possible.
    """
    by_id = {node.node_id: node for node in nodes}
    machines = [machine_of(node_id, measured[node_id]) for node_id in by_id]
    found = plan(model, machines, wishes_for(model), stages=stages)
    return [Placed(i, stage.layers, by_id[stage.node]) for i, stage in enumerate(found.prediction.stages)]


def named(nodes: Sequence[Node], measured: Mapping[str, Measured]) -> tuple[Machine, ...]:
    """The nodes as machines with names for people, made different where two have the same."""
    machines: list[Machine] = []
    for node in nodes:
        machine, taken = machine_of(node.name or node.node_id, measured[node.node_id]), {m.name for m in machines}
        machines.append(machine if machine.name not in taken else replace(machine, name=node.node_id))
    return tuple(machines)
