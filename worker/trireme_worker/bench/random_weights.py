"""A model with random weights at any shape, in memory. Looks to a stage like an opened pack."""

from __future__ import annotations

import numpy as np

from trireme_kernels.arrays import F32, U16
from trireme_worker.bench.interleave import Report, silent
from trireme_worker.pack import LayerWeights, ModelConfig
from trireme_worker.synth.weights import random_layer, random_table, source


class RandomPack:
    """Random weights of a shape, the first `layers` layers of it; the parts of `Pack` that a stage uses.

    Deterministic in `seed`. Embedding and head are one table, also where the shape has two: a step reads one row of the
    embedding and all of the head.
    """

    def __init__(
        self, config: ModelConfig, layout: str, *, layers: int | None = None, seed: int = 0, report: Report = silent
    ) -> None:
        self.config, self.layout = config, layout
        count = config.layers if layers is None else layers
        self._layers = []
        for i in range(count):
            report(i, count, f"random weights, layer {i + 1} of {count}")
            self._layers.append(random_layer(source(seed, i + 1), config, layout))
        report(count, count, "random weights, head")
        self._table = random_table(source(seed, 0), config.vocabulary, config.hidden_size)

    def layer(self, index: int) -> LayerWeights:
        """Weights of layer `index`."""
        return self._layers[index]

    def embedding(self) -> U16:
        """bfloat16 bits, uint16 [vocabulary, hidden_size]."""
        return self._table

    def head(self) -> U16:
        """As `embedding`."""
        return self._table

    def final_norm(self) -> F32:
        """Gain of the norm before the head, float32 [hidden_size]."""
        return np.ones(self.config.hidden_size, np.float32)
