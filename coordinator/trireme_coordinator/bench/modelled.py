"""A stage that sleeps instead of computing. Everything else of it is real: frames, checks, KV books, gRPC.

Owns how long a step takes and what token comes out (nothing that means anything).
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from trireme_coordinator.simulation import StageTimes, work_of
from trireme_worker.batch import Batch, Sampled
from trireme_worker.kv_cache import KVCache, pages_for
from trireme_worker.pack import ModelConfig
from trireme_worker.stage import StageModel


class ModelledStage(StageModel):
    """Stands for `layers` of a model with these sizes; takes as long as `times` says."""

    def __init__(self, config: ModelConfig, layers: range, times: StageTimes, *, kv_tokens: int, slots: int) -> None:
        self.config, self.layers = config, layers
        self.first, self.last = layers.start == 0, layers.stop == config.layers
        self._times = times
        self.kv = KVCache(
            layers=0, pages=pages_for(kv_tokens), kv_heads=1, head_dim=2, slots=slots, context=config.context
        )

    def embed(self, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Zeros of the right size."""
        return np.zeros((len(token_ids), self.config.hidden_size), np.float32)

    def forward(self, batch: Batch, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sleeps, and returns `hidden` as it is."""
        sampled = sum(row.sampling is not None for row in batch.rows)
        time.sleep(self._times.compute_s(work_of(batch.rows, sampled)))
        return hidden

    def sample(self, batch: Batch, hidden: NDArray[np.float32]) -> list[Sampled]:  # noqa: ARG002
        """A token for each row that asks for one."""
        return [Sampled(row.slot, row.position + row.count, 0) for _, row in batch.sampled()]

    def close(self) -> None:
        """There is nothing to end."""
