"""A stage that sleeps instead of computing. Everything else of it is real: frames, checks, KV books, gRPC.

Owns how long a step takes; the tokens that come out mean nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import trireme_kernels as kernels
from trireme_coordinator.simulation import StageTimes, work_of
from trireme_worker.batch import Batch
from trireme_worker.head import OutputHead
from trireme_worker.kv_cache import KVCache, pages_for
from trireme_worker.pack import ModelConfig
from trireme_worker.stage import StageModel

VOCABULARY = 4096
"""Of all modelled models: drawing a token takes no time that counts."""


class EvenHead(OutputHead):
    """Every token is as likely as any other: what is drawn repeats nothing that could be guessed."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros((len(hidden), self.vocabulary), np.float32)

    def largest(self, hidden: NDArray[np.float32], keep: Sequence[int]) -> list[NDArray[np.float32]]:  # noqa: ARG002
        """Zeros, too."""
        return list(self.logits(hidden))


class ModelledStage(StageModel):
    """Stands for `layers` of a model with these sizes; takes as long as `times` says."""

    def __init__(self, config: ModelConfig, layers: range, times: StageTimes, *, kv_tokens: int, slots: int) -> None:
        self.config, self.layers = replace(config, vocabulary=VOCABULARY), layers
        self.first, self.last = layers.start == 0, layers.stop == config.layers
        self.threads = 0  # none of the kernels': there is nothing to pin
        self._times = times
        self._head = EvenHead(VOCABULARY) if self.last else None
        self.kv = KVCache(
            layers=0, pages=pages_for(kv_tokens), kv_heads=1, head_dim=2, slots=slots, context=config.context
        )
        kernels.sample(np.zeros(VOCABULARY, np.float32), 1.0, 0, 1.0, 0, 0)  # compiles: no step is to wait for that

    @property
    def pulse(self) -> int:
        """Always gets on, however long it sleeps."""
        return int(time.monotonic() * 10)

    def embed(self, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Zeros of the right size."""
        return np.zeros((len(token_ids), self.config.hidden_size), np.float32)

    def forward(self, batch: Batch, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sleeps, and returns `hidden` as it is."""
        sampled = sum(row.sampling is not None for row in batch.rows)
        time.sleep(self._times.compute_s(work_of(batch.rows, sampled)))
        return hidden

    def close(self) -> None:
        """There is nothing to end."""
