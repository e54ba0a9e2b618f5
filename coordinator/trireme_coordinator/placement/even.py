"""Which node computes which layers. Pure functions over plain numbers: no Ray, no files.

Activations pass through the stages one after the other, so a stage is a contiguous range of layers, and the slowest
stage sets the pace: the ranges are chosen so that the most bytes any stage reads for a token are as few as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

from trireme_proto.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Node:
    """A machine as the cluster knows it."""

    node_id: str
    name: str
    address: str
    host: str = ""
    """Name of the machine: nodes with the same one share its CPUs and memory."""
    memory_bytes: int = 0
    """That were free when the node joined the cluster. 0: not known."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Stage `stage` computes `layers` on `node`."""

    stage: int
    layers: range
    node: Node


class LayersOf(Sequence[tuple[int, int]]):
    """[first, end) of each stage's layers, of a placement that may still change."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self._placed = placed

    def __len__(self) -> int:
        return len(self._placed)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        layers = self._placed[index].layers
        return layers.start, layers.stop


def place(layer_bytes: Sequence[int], head_bytes: int, nodes: Sequence[Node], stages: int) -> list[Placed]:
    """Stages in pipeline order, spread evenly over the nodes, neighbours on one node where there are more stages than
    nodes.

    `layer_bytes[i]`: bytes that layer i reads for a token; `head_bytes`: what the last stage reads besides its layers.
    ConfigurationError where there are more stages than layers, or no node.
    """
    if not nodes:
        raise ConfigurationError("The Ray cluster has no node to place a stage on.")
    ranges = partition([*layer_bytes[:-1], layer_bytes[-1] + head_bytes], stages)
    ordered = sorted(nodes, key=lambda node: (node.name, node.node_id))
    used = ordered[:stages]
    return [Placed(i, layers, used[i * len(used) // stages]) for i, layers in enumerate(ranges)]


def partition(costs: Sequence[int], parts: int) -> list[range]:
    """Cuts [0, len(costs)) into `parts` contiguous, non-empty ranges whose greatest sum is the least possible.

    Dynamic programming over (items so far, parts so far); of several best cuts, the one with the earliest ends.
    """
    n = len(costs)
    if not 1 <= parts <= n:
        raise ConfigurationError(
            f"{parts} stages are not possible: the model has {n} layers, a stage takes at least one."
        )
    total = [0]
    for cost in costs:
        total.append(total[-1] + cost)
    best = [[0] * (n + 1) for _ in range(parts + 1)]  # best[p][i]: greatest sum when items [0, i) are cut into p ranges
    cut = [[0] * (n + 1) for _ in range(parts + 1)]
    best[1] = list(total)
    for p in range(2, parts + 1):
        for i in range(p, n + 1):
            best[p][i], cut[p][i] = min((max(best[p - 1][j], total[i] - total[j]), j) for j in range(p - 1, i))
    ends = [n]
    for p in range(parts, 1, -1):
        ends.append(cut[p][ends[-1]])
    ends = [0, *reversed(ends)]
    return [range(a, b) for a, b in pairwise(ends)]
