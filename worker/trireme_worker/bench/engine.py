"""A model that stands at a context, ready to take the same step again and again.

The one file that knows how the serving path computes: it drives `StageModel` as a worker does, without a network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.arrays import U16
from trireme_worker.batch import Batch, Row, SamplingParams
from trireme_worker.bench.traffic import StepBytes, kv_bytes, layer_bytes
from trireme_worker.kv_cache import KVCache, pages_for
from trireme_worker.pack import LayerWeights, ModelConfig, Pack
from trireme_worker.stage import StageModel

_GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, seed=0)


class Weights(Protocol):
    """What a stage takes out of a pack; `Pack` and `RandomPack` are both of that kind."""

    @property
    def config(self) -> ModelConfig:
        """The model's sizes."""

    @property
    def layout(self) -> str:
        """Of its ternary weights."""

    def layer(self, index: int) -> LayerWeights:
        """Weights of a layer."""

    def embedding(self) -> U16:
        """The embedding table."""

    def head(self) -> U16:
        """The head's table."""

    def final_norm(self) -> NDArray[np.float32]:
        """Gain of the norm before the head."""


class Engine:
    """The first `layers` layers of a model and its head, on `threads` threads.

    `batch` sequences hold `context - count` tokens each, and a step gives each of them `count` more: decoding with
    count 1, prefill with count = context.
    """

    def __init__(
        self, weights: Weights, *, layers: int, threads: int, context: int, count: int = 1, batch: int = 1
    ) -> None:
        self.config, self.layers, self.layout = weights.config, layers, weights.layout
        self._weights = weights
        self._held, self._context, self._count, self._sequences = context - count, context, count, batch
        cut = _Cut(weights, replace(weights.config, layers=layers, context=max(context, weights.config.context)))
        tokens = batch * pages_for(context) * 16
        self._model = StageModel(cast("Pack", cut), range(layers), threads=threads, kv_tokens=tokens, slots=batch)
        _touch(self._model.kv)
        self._batch = Batch(tuple(Row(slot, self._held, count, _GREEDY) for slot in range(batch)))
        self._tokens = (np.arange(batch * count, dtype=np.int32) * 7919 % self.config.vocabulary).astype(np.int32)
        self._hidden = self._model.embed(self._tokens)

    def rewind(self) -> None:
        """Every sequence holds what it held before the step. The pages stay the same ones."""
        kv = self._model.kv
        for row in self._batch.rows:
            kv.release(row.slot)
        for row in self._batch.rows:
            if self._held:
                kv.extend(row.slot, 0, self._held)
        getattr(self._model, "reserve", lambda _batch: None)(self._batch)

    def run_layers(self) -> None:
        """Embeds the step's tokens and applies the layers; after `rewind`."""
        self._hidden = self._model.forward(self._batch, self._model.embed(self._tokens))

    def run_head(self) -> None:
        """Logits of each sequence's last token, and the choice of the next."""
        self._model.sample(self._batch, self._hidden)

    def step_bytes(self) -> StepBytes:
        """What a step reads."""
        kv = self._model.kv
        head, gain = self._weights.head(), self._weights.final_norm()
        tokens = self._sequences * self._count
        return StepBytes(
            layer=layer_bytes(self._weights.layer(0), self.config),
            kv=kv_bytes(self.config, self._context, self._sequences, kv.k[0].itemsize),
            head=head.nbytes + gain.nbytes,
            rows=tokens * self.config.hidden_size * 2,
        )

    def close(self) -> None:
        """Ends the threads."""
        self._model.close()


class _Cut:
    """Weights with another number of layers, or a longer context."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        self.config = config
        self.layout = weights.layout
        self.layer, self.embedding = weights.layer, weights.embedding
        self.head, self.final_norm = weights.head, weights.final_norm


def _touch(kv: KVCache) -> None:
    """Fills the cache with small numbers: pages that were never written are all one page of zeros to the machine."""
    for pages in (*kv.k, *kv.v):
        pages.reshape(-1)[:] = (np.arange(pages.size) % 1024 + 0x2800).astype(pages.dtype)
