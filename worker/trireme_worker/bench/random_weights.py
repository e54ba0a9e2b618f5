"""A model with random weights at any shape, in memory. Looks to a stage like an opened pack."""

from __future__ import annotations

import math

import numpy as np

from trireme_kernels.arrays import F32, U16, round_up
from trireme_kernels.head_weights import ROWS_AT_A_TIME, HeadWeights, codes_of, draw_dither
from trireme_kernels.large_pages import large_empty
from trireme_worker.bench.interleave import Report, silent
from trireme_worker.pack import LayerWeights, ModelConfig
from trireme_worker.pack.reader import Head
from trireme_worker.synth.weights import random_layer, random_table, source


def random_head(rng: np.random.Generator, rows: int, cols: int, kind: str) -> HeadWeights:
    """An "int8" or "int8+4bit" head with levels of all sizes: for the first pass, the hardest there is."""
    width, tiles = round_up(cols, 64), round_up(rows, 32) // 32
    levels = large_empty(rows * width).view(np.int8).reshape(rows, width)
    codes = large_empty(tiles * width * 16).reshape(tiles, width // 8, 32, 4) if kind == "int8+4bit" else None
    totals, dither = np.empty(rows, np.int32), draw_dither(width) if kind == "int8+4bit" else None
    for at in range(0, rows, ROWS_AT_A_TIME):
        some = levels[at : at + ROWS_AT_A_TIME]
        some[:, :cols] = rng.integers(-127, 128, (len(some), cols), np.int8)
        totals[at : at + len(some)] = some.sum(axis=1, dtype=np.int32)
        if codes is not None and dither is not None:
            made = codes_of(some, dither)
            codes[at // 32 : at // 32 + len(made)] = made
    scales = np.full(rows, 1 / (127 * math.sqrt(cols)), np.float32)
    return HeadWeights(cols, levels, scales, totals, codes, dither)


class RandomPack:
    """Random weights of a shape, the first `layers` layers of it; the parts of `Pack` that a stage uses.

    Deterministic in `seed`. A head of kind "bf16" is the embedding's table, also where the shape has two: a step reads
    one row of the embedding and all of the head. Other heads are made as integers.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: str,
        *,
        head: str = "int8+4bit",
        layers: int | None = None,
        seed: int = 0,
        report: Report = silent,
    ) -> None:
        self.config, self.layout, self.head_kind = config, layout, head
        count = config.layers if layers is None else layers
        self._layers = []
        for i in range(count):
            report(i, count, f"random weights, layer {i + 1} of {count}")
            self._layers.append(random_layer(source(seed, i + 1), config, layout))
        report(count, count, "random weights, head")
        self._table = random_table(source(seed, 0), config.vocabulary, config.hidden_size)
        self._head: Head = self._table
        if head != "bf16":
            self._head = random_head(np.random.default_rng(seed), config.vocabulary, config.hidden_size, head)

    def layer(self, index: int) -> LayerWeights:
        """Weights of layer `index`."""
        return self._layers[index]

    def embedding(self) -> U16:
        """bfloat16 bits, uint16 [vocabulary, hidden_size]."""
        return self._table

    def head(self) -> Head:
        """The embedding's table, or integers."""
        return self._head

    def final_norm(self) -> F32:
        """Gain of the norm before the head, float32 [hidden_size]."""
        return np.ones(self.config.hidden_size, np.float32)
