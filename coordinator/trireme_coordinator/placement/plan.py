"""A plan: the assignment, what it will do, who was left out and why, and what one machine more or less would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trireme_coordinator.placement.costs import GB, Machine, ModelCosts, StageCosts, decode_step, kind
from trireme_coordinator.placement.predict import Prediction, Wishes
from trireme_coordinator.placement.settle import MOST_MACHINES, Settled, attempt, is_better, settle
from trireme_proto.errors import ConfigurationError

WHAT_IF_KINDS = 32
"""Kinds of machines for which one more and one less are tried, at most."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A machine without layers."""

    node: str
    reason: str
    spare: bool
    """Whether it has the memory to take over a whole stage that is lost."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The same deployment with another machine like `node`, or without it; None where it cannot hold the model."""

    change: Literal["add", "remove"]
    node: str
    prediction: Prediction | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that can be said before a deployment."""

    model: ModelCosts
    wishes: Wishes
    prediction: Prediction
    left_out: tuple[LeftOut, ...]
    what_if: tuple[WhatIf, ...]
    """One for each kind of machine and change, named after the first machine of its kind; up to `WHAT_IF_KINDS`."""


def plan(model: ModelCosts, machines: Sequence[Machine], wishes: Wishes, *, stages: int | None = None) -> Plan:
    """The plan for a model on some machines, on exactly `stages` of them where that is given.

    ConfigurationError: the model does not fit, a wish is beyond its context, or there are not so many stages.
    """
    all_of_them = tuple(machines)
    _check(model, all_of_them, wishes, stages)
    found = settle(model, all_of_them, wishes, stages)
    if found is None:
        raise _does_not_fit(model, all_of_them, wishes, stages)
    what_if = _what_if(model, all_of_them, wishes, found) if stages is None else ()
    return Plan(model, wishes, found.prediction, _left_out(all_of_them, found, stages), what_if)


def _check(model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, stages: int | None) -> None:
    if not machines:
        raise ConfigurationError("There is no node to place a stage on.")
    if wishes.prompt < 1 or wishes.context < 1:
        raise ConfigurationError("A plan is for prompts and contexts of at least one token.")
    if max(wishes.prompt + 1, wishes.context) > model.context:
        raise ConfigurationError(
            f"A sequence of {model.name} holds {model.context} tokens;"
            f" a prompt of {wishes.prompt} or a context of {wishes.context} does not fit."
        )
    if stages is not None and not 1 <= stages <= min(len(machines), model.layers):
        raise ConfigurationError(
            f"{stages} stages are not possible: there are {len(machines)} nodes and {model.layers} layers."
        )


def _does_not_fit(
    model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, stages: int | None
) -> ConfigurationError:
    needed = StageCosts(model, machines, decode_step(1, 0), wishes.positions).needed(0, model.layers)
    there = sum(machine.ram_bytes for machine in machines)
    on = f"{len(machines)} {'node' if len(machines) == 1 else 'nodes'}"
    cut = "" if stages is None else f" in {stages} {'stage' if stages == 1 else 'stages'}"
    return ConfigurationError(
        f"{model.name} does not fit{cut}: it takes {needed / GB:.1f} GB and more for each further process,"
        f" and no cut of its layers fits the {there / GB:.1f} GB of {on}."
    )


def _left_out(machines: tuple[Machine, ...], found: Settled, stages: int | None) -> tuple[LeftOut, ...]:
    shares = found.assignment.shares
    used = {found.kept[share.machine] for share in shares}
    smallest = min(found.costs.needed(share.layers.start, share.layers.stop) for share in shares)
    position = {i: at for at, i in enumerate(found.kept)}
    reasons = {i: _reason(found, at, stages) for i, at in position.items() if i not in used} | dict(found.dropped)
    return tuple(LeftOut(machines[i].name, reasons[i], machines[i].ram_bytes >= smallest) for i in sorted(reasons))


def _reason(found: Settled, at: int, stages: int | None) -> str:
    """Why a machine has no layers."""
    costs, layers = found.costs, range(found.costs.model.layers)
    machine, least = costs.machines[at], min(costs.needed(i, i + 1) for i in layers)
    if machine.ram_bytes < least:
        return f"its {machine.ram_gb:.1f} GB of memory hold no layer, which takes {least / GB:.1f} GB with its process"
    compute = min(costs.compute_s(at, i, i + 1) for i in layers)
    seconds, slowest = compute + costs.seconds(at, 0, 0), found.assignment.slowest_s
    if seconds > slowest and seconds > 2 * compute:
        hop = f"{(seconds - compute) * 1e3:.2f} ms"
        return f"its hop takes {hop}, more than it saves: the slowest stage takes {slowest * 1e3:.2f} ms"
    if seconds > slowest:
        return f"it takes {seconds * 1e3:.2f} ms for one layer, the slowest stage takes {slowest * 1e3:.2f} ms"
    if stages is not None:
        return f"{stages} {'stage was' if stages == 1 else 'stages were'} asked for"
    return "the slowest stage would be no faster with it"


def _what_if(model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, found: Settled) -> tuple[WhatIf, ...]:
    kinds: dict[Machine, int] = {}
    for i, machine in enumerate(machines):
        kinds.setdefault(kind(machine), i)
    most = max(1, min(WHAT_IF_KINDS, MOST_MACHINES // len(machines)))
    changes: list[WhatIf] = []
    for i in list(kinds.values())[:most]:
        name = machines[i].name
        changes.append(WhatIf("add", name, _with_another(model, machines, wishes, found, i)))
        changes.append(WhatIf("remove", name, _without(model, machines, wishes, found, i)))
    return tuple(changes)


def _with_another(
    model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, found: Settled, i: int
) -> Prediction:
    """With a copy of machine i, unless things are better without it."""
    if i in found.dropped:
        return found.prediction
    copy = replace(machines[i], name=f"{machines[i].name} (copy)")
    new = attempt(model, (*machines, copy), (*found.kept, len(machines)), wishes)
    if new is None or is_better(found.prediction, new.prediction):
        return found.prediction
    return new.prediction


def _without(
    model: ModelCosts, machines: tuple[Machine, ...], wishes: Wishes, found: Settled, i: int
) -> Prediction | None:
    """Without machine i; those that were dropped come back where the model does not fit otherwise."""
    if i not in {found.kept[share.machine] for share in found.assignment.shares}:
        return found.prediction
    new = attempt(model, machines, tuple(k for k in found.kept if k != i), wishes)
    if new is None:
        new = attempt(model, machines, tuple(k for k in range(len(machines)) if k != i), wishes)
    return None if new is None else new.prediction
