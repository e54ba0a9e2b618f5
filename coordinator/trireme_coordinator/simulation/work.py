"""What a micro-batch asks of a stage, and how long a stage takes for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from trireme_coordinator.placement.costs import Step


class RowLike(Protocol):
    """A row of a micro-batch, the scheduler's or a worker's."""

    @property
    def position(self) -> int: ...
    @property
    def count(self) -> int: ...


def work_of(rows: Iterable[RowLike], sampled: int) -> Step:
    """The work of a micro-batch with these rows."""
    tokens = kv_tokens = attended = 0
    for row in rows:
        tokens += row.count
        kv_tokens += row.position + row.count
        attended += row.count * row.position + row.count * (row.count + 1) // 2
    return Step(tokens, kv_tokens, attended, sampled)


class StageTimes(Protocol):
    """A stage as the simulation sees it. Seconds."""

    def compute_s(self, work: Step) -> float:
        """Of computing a micro-batch."""

    def transfer_s(self, tokens: int) -> float:
        """That the activations of so many tokens keep the link to the next stage busy."""

    @property
    def latency_s(self) -> float:
        """From there until they have arrived."""


@dataclass(frozen=True, slots=True)
class FixedStage:
    """A stage that takes the longer of two times: `step_s` for reading its weights, `token_s` for each token."""

    step_s: float
    token_s: float
    latency_s: float = 0.0
    token_transfer_s: float = 0.0

    def compute_s(self, work: Step) -> float:
        """Of computing a micro-batch; nothing for one that only frees slots."""
        return max(self.step_s, self.token_s * work.tokens) if work.tokens else 0.0

    def transfer_s(self, tokens: int) -> float:
        """In proportion to the tokens."""
        return self.token_transfer_s * tokens
