"""Pipelines of machines: dealt out to replicas, cut and placed as for a deployment, timed by the same roofline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from trireme_coordinator.placement.costs import Machine, ModelCosts, Step, kind
from trireme_coordinator.placement.predict import Wishes
from trireme_coordinator.placement.settle import Settled, settle
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.scheduler.budget import pages_for
from trireme_coordinator.simulation.replica import Pipeline
from trireme_proto.errors import ConfigurationError


class MachineStage:
    """Some layers of a model on a machine."""

    def __init__(self, model: ModelCosts, machine: Machine, layers: range) -> None:
        self._model, self._machine, self._count = model, machine, len(layers)
        self._kinds = Counter((model.layer_bytes[i], model.layer_macs[i]) for i in layers)
        self._last = layers.stop == model.layers
        self.latency_s = machine.rtt_ms / 2e3
        """To the next stage."""

    def compute_s(self, step: Step) -> float:
        """As `StageCosts.compute_s`, for a step that is not known before; nothing for one that only frees slots."""
        if not step.tokens:
            return 0.0
        model, seconds = self._model, self._machine.seconds
        weights = sum(n * seconds(nbytes, macs * step.tokens) for (nbytes, macs), n in self._kinds.items())
        attention = seconds(model.kv_bytes * step.kv_tokens, model.attention_macs * step.attended)
        head = seconds(model.head_read_bytes, model.head_macs * step.sampled) if self._last and step.sampled else 0.0
        return weights + self._count * attention + head

    def transfer_s(self, tokens: int) -> float:
        """Of the activations of so many tokens."""
        return self._machine.transfer_s(self._model.frame_bytes * tokens)


def pipelines(
    model: ModelCosts, machines: Sequence[Machine], replicas: int, wishes: Wishes, *, queue: int
) -> list[Pipeline]:
    """The machines dealt out to `replicas` pipelines as evenly as they go, each placed for `wishes`.

    ConfigurationError: fewer machines than replicas, or the model does not fit the machines of one of them.
    """
    if len(machines) < replicas:
        raise ConfigurationError(f"{replicas} replicas need as many nodes at least; there are {len(machines)}.")
    settled: dict[tuple[Machine, ...], Settled | None] = {}
    found = []
    for number, group in enumerate(deal(machines, replicas)):
        alike = tuple(map(kind, group))
        if alike not in settled:
            settled[alike] = settle(model, group, wishes)
        placed = settled[alike]
        if placed is None:
            names = f"{group[0].name}{f' and {len(group) - 1} more' if len(group) > 1 else ''}"
            raise ConfigurationError(f"{model.name} does not fit the nodes of replica {number}: {names}.")
        found.append(_pipeline(model, group, placed, wishes, queue))
    return found


def deal(machines: Sequence[Machine], replicas: int) -> list[tuple[Machine, ...]]:
    """The fastest machines first, there and back over the replicas, as cards are dealt fairly."""
    groups: list[list[Machine]] = [[] for _ in range(replicas)]
    ordered = sorted(machines, key=lambda machine: (-machine.read_gb_s, -machine.ram_gb, machine.name))
    for i, machine in enumerate(ordered):
        turn, at = divmod(i, replicas)
        groups[at if turn % 2 == 0 else replicas - 1 - at].append(machine)
    return [tuple(group) for group in groups]


def repeated(machines: Sequence[Machine], count: int) -> list[Machine]:
    """As many machines as `count`, these over and over, under names of their own."""
    turns = (divmod(i, len(machines)) for i in range(count))
    return [replace(machines[i], name=f"{machines[i].name}#{turn}" if turn else machines[i].name) for turn, i in turns]


def _pipeline(model: ModelCosts, group: tuple[Machine, ...], placed: Settled, wishes: Wishes, queue: int) -> Pipeline:
    shares = placed.assignment.shares
    chosen = [group[placed.kept[share.machine]] for share in shares]
    config = SchedulerConfig(
        stages=len(shares),
        slots=wishes.slots,
        pages=pages_for(placed.prediction.kv_tokens + 1) - 1,
        context=model.context,
        prefill_chunk=wishes.prefill_chunk,
        queue=queue,
    )
    stages = [MachineStage(model, m, share.layers) for m, share in zip(chosen, shares, strict=True)]
    return Pipeline(config, stages, chosen[0].rtt_ms / 2e3, [machine.name for machine in chosen])
