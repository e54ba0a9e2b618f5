"""What the engine tells of each step that came back: tokens, time between them, what each stage did.

On the path of every token, so: no lock, no clock of its own, nothing made for a token. Rows whose last tokens came
with the same step waited equally long, and are added together.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from trireme_coordinator.metrics.values import DEFAULT_TENANT, HOP_BOUNDS, Bounded, Histogram
from trireme_coordinator.scheduler import Batch, Sequence
from trireme_coordinator.telemetry.steps import MOST_STAGES, Timing
from trireme_proto.limits import LIMITS


@dataclass(slots=True)
class StageMeter:
    """One place in the pipeline, whatever process has it. Nanoseconds and bytes, which only ever rise."""

    busy_ns: int = 0
    wait_ns: int = 0
    wire_ns: int = 0
    weight_bytes: int = 0
    bubble_ns: int = 0
    hops: Histogram = field(default_factory=lambda: Histogram(HOP_BOUNDS))


@dataclass(slots=True)
class TenantTokens:
    """Of one tenant."""

    prompt: int = 0
    generation: int = 0


class StepMeter:
    """Adds up steps. `step_bytes`: of weights that each stage reads for a step, and for one that samples."""

    def __init__(self) -> None:
        self.step_bytes: Items[tuple[int, int]] = ()
        self.stages: list[StageMeter] = []
        self.steps = {"prefill": 0, "decode": 0, "mixed": 0}
        self.prefill_tokens = self.decode_tokens = 0
        self.prompt_tokens = self.cached_tokens = self.generation_tokens = 0
        self.drafted = self.accepted = 0
        self.active_ns = 0
        self.step_ns = 0
        """Sum of all steps, each from being sent to its result."""
        self.inter_token, self.step_times = Histogram(), Histogram()
        self.tenants: dict[str, TenantTokens] = {}
        self.bounded = Bounded(LIMITS.metric_tenants)
        self._last_ns = 0

    @property
    def count(self) -> int:
        """Of all steps."""
        return sum(self.steps.values())

    def stepped(
        self,
        batch: Batch,
        sampled: int,
        tokens: Mapping[Sequence, Items[int]],
        timings: Items[Timing],
        sent_ns: int,
        now_ns: int,
    ) -> None:
        """A micro-batch came back: `sampled` tokens in all, and those of each sequence that count. Times of one clock;
        micro-batches come back in the order in which they were sent.
        """
        self.active_ns += now_ns - max(sent_ns, self._last_ns)
        self._last_ns = now_ns
        if not batch.rows:
            return
        self.step_ns += now_ns - sent_ns
        self.step_times.add((now_ns - sent_ns) / 1e9)
        self._add_rows(batch, sampled)
        self._add_stages(timings, sampling=sampled > 0)
        self._add_tokens(tokens, now_ns)

    def bubble_ns(self, stage: int) -> int:
        """Of a stage: while the pipeline was active, and it did not compute. Only rises: what the stage computes for
        steps that are still under way is known later.
        """
        meter = self.stages[stage]
        meter.bubble_ns = max(meter.bubble_ns, self.active_ns - meter.busy_ns)
        return meter.bubble_ns

    def _add_rows(self, batch: Batch, sampled: int) -> None:
        prefill = fed = sampling = 0
        for row in reversed(batch.rows):  # decode rows come first
            if not row.prefill:
                break
            prefill, fed, sampling = prefill + 1, fed + row.count, sampling + row.samples
        decode = len(batch.rows) - prefill
        self.prefill_tokens += fed
        self.decode_tokens += len(batch.token_ids) - fed
        self.drafted += sampled - sampling - decode
        self.steps["mixed" if prefill and decode else "prefill" if prefill else "decode"] += 1

    def _add_stages(self, timings: Items[Timing], *, sampling: bool) -> None:
        while len(self.stages) < min(len(timings), MOST_STAGES):
            self.stages.append(StageMeter())
        for stage, timing in zip(self.stages, timings, strict=False):
            wire_ns = timing.wire_ns
            stage.busy_ns += timing.compute_ns
            stage.wait_ns += timing.wait_ns
            stage.wire_ns += wire_ns
            stage.hops.add(wire_ns / 1e9)
        for stage, (always, with_head) in zip(self.stages, self.step_bytes, strict=False):
            stage.weight_bytes += with_head if sampling else always

    def _add_tokens(self, tokens: Mapping[Sequence, Items[int]], now_ns: int) -> None:
        since = rows = 0  # rows with one token each, whose last tokens came at `since`
        for sequence, taken in tokens.items():
            last, sequence.told_ns, made = sequence.told_ns, now_ns, len(taken)
            self._tenant(sequence.tenant).generation += made
            self.generation_tokens += made
            self.accepted += made - 1
            if last == since and made == 1 and last:
                rows += 1
            elif last:
                if rows:
                    self.inter_token.add((now_ns - since) / 1e9, rows)
                since, rows = last, 1
                if made > 1:
                    self.inter_token.add((now_ns - last) / 1e9 / made, made)
                    since = rows = 0
            else:
                self._first(sequence, made)
        if rows:
            self.inter_token.add((now_ns - since) / 1e9, rows)

    def _first(self, sequence: Sequence, made: int) -> None:
        """The answer's first token; or the first one here, of an answer that goes on."""
        self._tenant(sequence.tenant).prompt += sequence.prompt_length
        self.prompt_tokens += sequence.prompt_length
        self.cached_tokens += min(sequence.cached, sequence.prompt_length)
        if made > 1:
            self.inter_token.add(0.0, made - 1)

    def _tenant(self, name: str) -> TenantTokens:
        found = self.tenants.get(name or DEFAULT_TENANT)
        if found is None:
            label = self.bounded.of(name or DEFAULT_TENANT)
            found = self.tenants.setdefault(label, TenantTokens())
        return found
