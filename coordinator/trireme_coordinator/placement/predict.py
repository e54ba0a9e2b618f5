"""What an assignment will do: tokens/s of one stream and of many, time to the first token, memory, room for KV.

One stream passes through all stages in turn. Of many streams, up to `stages + 1` micro-batches are under way, so that
the slowest stage sets the pace, unless there are too few of them to cover the way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trireme_coordinator.placement.assign import Share
from trireme_coordinator.placement.costs import (
    Machine,
    ModelCosts,
    StageCosts,
    decode_step,
    prefill_step,
)

_PROMPT, _CONTEXT = 512, 1024


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a plan is made for."""

    prompt: int = _PROMPT
    """Tokens of the prompt that the time to first token is for."""
    context: int = _CONTEXT
    """Positions that a decoded token attends to, and that each stage has room for at least. Raised to `prompt`."""
    prefill_chunk: int = 256
    """Most prompt tokens in a micro-batch."""
    slots: int = 64
    """Most sequences at once."""

    @property
    def positions(self) -> int:
        """Tokens that each stage has to have room for: one sequence, prompt included."""
        return max(self.prompt + 1, self.context)


def wishes_for(model: ModelCosts, prompt: int | None = None, context: int | None = None) -> Wishes:
    """Wishes with defaults that a model with a short context can have, too."""
    short = min(_PROMPT, max(1, model.context // 2))
    return Wishes(
        short if prompt is None else prompt,
        min(_CONTEXT, model.context) if context is None else context,
    )


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage."""

    node: str
    layers: range
    seconds: float
    """Of a decode step of one sequence, hop included."""
    ram_bytes: int
    """Weights, tables and the process, without keys and values."""
    free_bytes: int
    """Of the node's memory, left for keys and values."""
    kv_tokens: int
    """That fit into it."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Tokens/s of some sequences together."""

    sequences: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one assignment."""

    stages: tuple[StagePlan, ...]
    tokens_per_s_single: float
    tokens_per_s_aggregate: float
    """The most over all numbers of sequences that fit."""
    batches: tuple[Aggregate, ...]
    """By number of sequences: 1, 2, 4, .. up to what slots and memory hold."""
    ttft_s: float
    kv_tokens: int
    """Tokens of all sequences together that the stages have room for: that of the tightest stage."""


def predict(model: ModelCosts, machines: tuple[Machine, ...], shares: Sequence[Share], wishes: Wishes) -> Prediction:
    """What the assignment `shares` will do."""
    pipeline = _Pipeline(model, machines, shares)
    stages = tuple(_stage(model, machines, share, wishes) for share in shares)
    kv_tokens = min(stage.kv_tokens for stage in stages)
    counts = _doubling(min(wishes.slots, max(1, kv_tokens // wishes.positions)))
    batches = tuple(Aggregate(n, pipeline.tokens_per_s(n, wishes.context)) for n in counts)
    return Prediction(
        stages=stages,
        tokens_per_s_single=batches[0].tokens_per_s,
        tokens_per_s_aggregate=max(each.tokens_per_s for each in batches),
        batches=batches,
        ttft_s=pipeline.ttft_s(wishes.prompt, wishes.prefill_chunk),
        kv_tokens=kv_tokens,
    )


class _Pipeline:
    """The stages in turn; times of steps that are not the one that layers were assigned for."""

    def __init__(self, model: ModelCosts, machines: tuple[Machine, ...], shares: Sequence[Share]) -> None:
        self._model, self._shares = model, shares
        self._machines = tuple(machines[share.machine] for share in shares)
        self._enter_s = self._machines[0].rtt_ms / 2e3
        """From the coordinator to the first stage; token ids are few bytes."""

    def tokens_per_s(self, sequences: int, context: int) -> float:
        """Of decoding, in as many micro-batches as are best."""
        most = min(len(self._shares) + 1, sequences)
        return max(self._rate(sequences, context, batches) for batches in {1, most - 1 or 1, most})

    def _rate(self, sequences: int, context: int, batches: int) -> float:
        rows = -(-sequences // batches)
        costs = self._costs(rows, context)
        compute = [costs.compute_s(i, share.layers.start, share.layers.stop) for i, share in enumerate(self._shares)]
        frame = self._model.frame_bytes * rows
        hops = [machine.hop_s(frame) for machine in self._machines]
        busy = max(max(c, m.transfer_s(frame)) for c, m in zip(compute, self._machines, strict=True))
        round_s = self._enter_s + sum(compute) + sum(hops)
        return sequences / max(busy * batches, round_s)

    def _costs(self, rows: int, context: int) -> StageCosts:
        return StageCosts(self._model, self._machines, decode_step(rows, context), 0)

    def ttft_s(self, prompt: int, chunk: int) -> float:
        """Until the first token of an answer is there: chunks follow each other through the stages."""
        free_at = [0.0] * len(self._shares)
        arrived = self._enter_s
        for position in range(0, prompt, chunk):
            count = min(chunk, prompt - position)
            step = prefill_step(position, count, last=position + count == prompt)
            costs = StageCosts(self._model, self._machines, step, 0)
            arrived = self._enter_s
            for i, share in enumerate(self._shares):
                free_at[i] = max(arrived, free_at[i]) + costs.compute_s(i, share.layers.start, share.layers.stop)
                arrived = free_at[i] + self._machines[i].hop_s(self._model.frame_bytes * count)
        return arrived


def _stage(model: ModelCosts, machines: tuple[Machine, ...], share: Share, wishes: Wishes) -> StagePlan:
    machine, layers = machines[share.machine], share.layers
    costs = StageCosts(model, (machine,), decode_step(1, wishes.context), 0)
    needed = costs.needed(layers.start, layers.stop)
    free = machine.ram_bytes - needed
    kv_tokens = free // (model.kv_bytes * len(layers))
    return StagePlan(machine.name, layers, costs.seconds(0, layers.start, layers.stop), needed, free, kv_tokens)


def _doubling(most: int) -> list[int]:
    """1, 2, 4, .. and `most`."""
    return [*(1 << i for i in range(most.bit_length()) if 1 << i < most), most]
