"""Machines that are better left out: an assignment that is the fastest for one stream at a time need not be for many.

A machine that reads as fast as others but multiplies more slowly gets layers that hold everybody up once steps have
many tokens. So machines are taken away as long as neither one stream nor all streams together get slower by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trireme_coordinator.placement.assign import Assignment, assign
from trireme_coordinator.placement.costs import Machine, ModelCosts, StageCosts, decode_step, kind
from trireme_coordinator.placement.predict import Prediction, Wishes, predict

MOST_MACHINES = 1024
"""Machines in all the placements that are tried for one question, about: a second or two."""
_ROUNDS = 8
_WORTH = 1.001
"""By how much something must be better to count."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An assignment over the machines that are good for it. Indices are those of all machines."""

    kept: tuple[int, ...]
    """Machines that the assignment could choose from, used or not."""
    costs: StageCosts
    """Of the machines in `kept`; the assignment's indices are positions in there."""
    assignment: Assignment
    prediction: Prediction
    dropped: Mapping[int, str] = field(default_factory=dict)
    """Machines that would slow things down, and by how much."""


def settle(
    model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, stages: int | None = None
) -> Settled | None:
    """The best assignment over all machines, or over fewer where that is better; None where the model does not fit."""
    found = attempt(model, machines, tuple(range(len(machines))), wishes, stages)
    for _ in range(_ROUNDS if found is not None and stages is None else 0):
        better = None if found is None else _better(model, machines, wishes, found)
        if better is None:
            break
        found = better
    return found


def attempt(
    model: ModelCosts, machines: tuple[Machine, ...], kept: tuple[int, ...], wishes: Wishes, stages: int | None = None
) -> Settled | None:
    """The best assignment over the machines in `kept`."""
    chosen = tuple(machines[i] for i in kept)
    costs = StageCosts(model, chosen, decode_step(1, wishes.context), wishes.positions)
    found = assign(costs, stages) if chosen else None
    return None if found is None else Settled(kept, costs, found, predict(model, chosen, found.shares, wishes))


def is_better(new: Prediction, old: Prediction) -> bool:
    """No slower in anything, and faster in something."""
    single, aggregate = (
        new.tokens_per_s_single / old.tokens_per_s_single,
        new.tokens_per_s_aggregate / old.tokens_per_s_aggregate,
    )
    return min(single, aggregate) * _WORTH >= 1 and max(single, aggregate) > _WORTH


def _better(model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, now: Settled) -> Settled | None:
    """Without all machines of a kind, or without one of them, where that is better."""
    kinds: dict[Machine, list[int]] = {}
    for share in now.assignment.shares:
        i = now.kept[share.machine]
        kinds.setdefault(kind(machines[i]), []).append(i)
    slow_first = sorted(kinds.values(), key=lambda those: machines[those[0]].int8_gmac_s)
    for those in slow_first[: max(1, MOST_MACHINES // len(machines))] if len(kinds) > 1 else []:
        for out in (those, those[-1:]) if len(those) > 1 else (those,):
            new = attempt(model, machines, tuple(i for i in now.kept if i not in out), wishes)
            if new is not None and is_better(new.prediction, now.prediction):
                reasons = {i: _gain(now.prediction, new.prediction) for i in out}
                return Settled(new.kept, new.costs, new.assignment, new.prediction, {**now.dropped, **reasons})
    return None


def _gain(old: Prediction, new: Prediction) -> str:
    return (
        f"without it one stream makes {new.tokens_per_s_single:.2f} tokens/s instead of {old.tokens_per_s_single:.2f},"
        f" all streams {new.tokens_per_s_aggregate:.2f} instead of {old.tokens_per_s_aggregate:.2f}"
    )
