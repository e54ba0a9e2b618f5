"""Contiguous ranges of layers for machines, such that the slowest stage is as fast as possible; of all such ways, one
with the shortest way of a token through all stages.

Dynamic programming over (machines looked at, layers given away), first for the slowest stage, then, with that as a
bound, for the sum. A machine may be passed over. Within one order of the machines the result is the best there is.

Which orders are tried: the layers of a model are all alike, so only who comes first (and holds the embedding) and who
comes last (and computes the head) matters. All pairs of those are tried while there are at most `_ALL_KINDS` kinds of
machines: then the result is the best of all. With more kinds it is the best with one of the `_ENDS` largest machines
first and one of the `_ENDS` fastest last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trireme_coordinator.placement.costs import StageCosts, kind

_ALL_KINDS = 6
_ENDS = 3
_NEVER = float("inf")
_ROUNDING = 1 + 1e-9
"""Sums of seconds, added in another order, differ by less."""


@dataclass(frozen=True, slots=True)
class Share:
    """A machine, by its index, and its layers."""

    machine: int
    layers: range


@dataclass(frozen=True, slots=True)
class Assignment:
    """Stages in pipeline order."""

    shares: tuple[Share, ...]
    slowest_s: float
    """Seconds of the slowest stage, hop included."""
    total_s: float
    """Of all stages."""


def assign(costs: StageCosts, stages: int | None = None) -> Assignment | None:
    """The best assignment, on exactly `stages` machines where that is given; None where nothing fits."""
    found = (best_in_order(costs, order, stages) for order in orders(costs))
    possible = [each for each in found if each is not None]
    if not possible:
        return None
    bound = min(each.slowest_s for each in possible) * _ROUNDING
    return min((each for each in possible if each.slowest_s <= bound), key=lambda each: each.total_s)


def orders(costs: StageCosts) -> Iterator[tuple[int, ...]]:
    """Orders of all machines that are worth trying: the same but for who comes first and who last."""
    machines = costs.machines
    by_speed = sorted(range(len(machines)), key=lambda i: (costs.seconds(i, 0, 1), machines[i].name))
    kinds: dict[object, list[int]] = {}
    for i in by_speed:
        kinds.setdefault(kind(machines[i]), []).append(i)
    members = list(kinds.values())
    large = sorted(members, key=lambda those: -machines[those[0]].ram_gb)
    firsts, lasts = (members, members) if len(members) <= _ALL_KINDS else (large[:_ENDS], members[:_ENDS])
    if len(machines) == 1:
        yield (0,)
    for first in firsts:
        for last in lasts:
            ends = (first[0], last[-1])  # two of the same kind where they are equal
            if ends[0] != ends[1]:
                yield (ends[0], *(i for i in by_speed if i not in ends), ends[1])


def best_in_order(costs: StageCosts, order: Sequence[int], stages: int | None = None) -> Assignment | None:
    """The best assignment in which machines stand in this order, some of them passed over; None where nothing fits."""
    slowest = _slowest(costs, order, stages)
    if slowest == _NEVER:
        return None
    shares = _shortest(costs, order, stages, slowest * _ROUNDING)
    each = [costs.seconds(share.machine, share.layers.start, share.layers.stop) for share in shares]
    return Assignment(shares, max(each), sum(each))


def _slowest(costs: StageCosts, order: Sequence[int], stages: int | None) -> float:
    """Seconds of the slowest stage of the best assignment.

    best[s][i]: of layers [0, i) on s of the machines so far; one row where the number of stages is free.
    """
    best = _nothing_yet(costs, stages)
    for machine in order:
        ends, begins = costs.until(machine)
        for s in _rows(best, stages):
            before, row = best[s - 1] if stages else list(best[s]), best[s]
            for end, earliest in enumerate(costs.firsts[machine]):
                for first in range(end - 1, earliest - 1, -1):
                    seconds = ends[end] - begins[first]
                    if seconds >= row[end]:
                        break  # with more layers it only gets slower
                    row[end] = min(row[end], max(before[first], seconds))
    return best[-1][-1]


def _shortest(costs: StageCosts, order: Sequence[int], stages: int | None, bound: float) -> tuple[Share, ...]:
    """The assignment with the least sum, no stage slower than `bound`; there is one."""
    best = _nothing_yet(costs, stages)
    begun: list[list[dict[int, int]]] = []  # begun[k][s][end]: where the range of machine order[k] begins
    for machine in order:
        ends, begins = costs.until(machine)
        taken: list[dict[int, int]] = [{} for _ in best]
        for s in _rows(best, stages):
            before, row = best[s - 1] if stages else list(best[s]), best[s]
            for end, earliest in enumerate(costs.firsts[machine]):
                for first in range(end - 1, earliest - 1, -1):
                    seconds = ends[end] - begins[first]
                    if seconds > bound:
                        break
                    if before[first] + seconds < row[end]:
                        row[end], taken[s][end] = before[first] + seconds, first
        begun.append(taken)
    return _followed(order, begun, len(best) - 1, costs.model.layers)


def _nothing_yet(costs: StageCosts, stages: int | None) -> list[list[float]]:
    never = [_NEVER] * costs.model.layers
    return [[0.0, *never]] + [[_NEVER, *never] for _ in range(stages or 0)]


def _rows(best: Sequence[object], stages: int | None) -> range:
    """From the most stages down: the row before is still that of the machines before. Just one where they are free."""
    return range(len(best) - 1, 0, -1) if stages else range(1)


def _followed(
    order: Sequence[int], begun: Sequence[Sequence[dict[int, int]]], stage: int, end: int
) -> tuple[Share, ...]:
    """The ranges, from the last one back."""
    shares = []
    for machine, taken in zip(reversed(order), reversed(begun), strict=True):
        if end and end in taken[stage]:
            first = taken[stage][end]
            shares.append(Share(machine, range(first, end)))
            end, stage = first, max(stage - 1, 0)
    return tuple(reversed(shares))
