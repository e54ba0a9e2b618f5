"""Where a lost stage goes: back to its node while that lives, else to a spare one, else beside another stage.

Pure, as all of placement. Intact stages stay where they are: they keep their processes and weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from trireme_coordinator.placement.even import Node, Placed
from trireme_proto.errors import PipelineUnavailable


def relocate(
    placed: Sequence[Placed], lost: Collection[int], nodes: Sequence[Node], needed: Sequence[int]
) -> list[Placed]:
    """The stages anew, those in `lost` on nodes that live, the others where they are.

    nodes    those that live now
    needed   bytes that each stage takes, by number
    A node holds stages up to its memory (0: not known, and taken for enough). Of several, one without stages, then the
    one with the fewest, then the one with the most memory left. PipelineUnavailable where a stage has no place.
    """
    living = {node.node_id: node for node in nodes}
    found = {stage.stage: stage for stage in placed if stage.stage not in lost}
    for stage in sorted((s for s in placed if s.stage in lost), key=lambda s: s.node.node_id not in living):
        home = living.get(stage.node.node_id)
        node = home if home is not None else _best(stage, list(found.values()), nodes, needed)
        found[stage.stage] = replace(stage, node=node)
    return [found[number] for number in sorted(found)]


def _best(stage: Placed, others: Sequence[Placed], nodes: Sequence[Node], needed: Sequence[int]) -> Node:
    on = {node.node_id: [s.stage for s in others if s.node.node_id == node.node_id] for node in nodes}
    room = {n.node_id: n.memory_bytes - sum(needed[s] for s in on[n.node_id]) for n in nodes}
    fit = [n for n in nodes if not n.memory_bytes or room[n.node_id] >= needed[stage.stage]]
    if not fit:
        raise PipelineUnavailable(f"No node that lives has room for stage {stage.stage}; it waits for one.")
    return min(fit, key=lambda n: (len(on[n.node_id]), -room[n.node_id], n.name, n.node_id))
