"""A model with random weights at any shape, made in memory as bytes of the packed layouts: no int8 weight ever exists.

Owns which bytes are possible in each layout. Looks to a stage like an opened pack; what it says is noise, what it costs
is what a trained model of that shape costs.
"""

from __future__ import annotations

import math

import numpy as np

from trireme_kernels.arrays import F32, U8, U16, round_up
from trireme_kernels.head_weights import ROWS_AT_A_TIME, HeadWeights, codes_of, draw_dither
from trireme_kernels.large_pages import large_empty
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import packed_bytes
from trireme_worker.bench.interleave import Report, silent
from trireme_worker.pack import LayerWeights, ModelConfig
from trireme_worker.pack.reader import Head
from trireme_worker.pack.tensors import matrices, norms, padded_scales

_PIECE = 1 << 24
"""Bytes drawn at a time, so that the random numbers take no memory to speak of beside the weights."""
_BASE3_CODES = 243
FIELDS_2BIT = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)], np.uint8
)
"""The 81 bytes whose four fields are 0, 1 or 2."""


def draw_codes(rng: np.random.Generator, data: U8, layout: str) -> None:
    """Fill packed weights, uniform over the bytes that the layout allows."""
    for at in range(0, data.size, _PIECE):
        piece = data[at : at + _PIECE]
        if layout == "1.6bit":
            piece[:] = rng.integers(0, _BASE3_CODES, piece.size, np.uint8)
        else:
            np.take(FIELDS_2BIT, rng.integers(0, FIELDS_2BIT.size, piece.size, np.uint8), out=piece)


def random_matrix(rng: np.random.Generator, rows: int, cols: int, layout: str, data: U8 | None = None) -> PackedMatrix:
    """A ternary matrix whose outputs are about as large as its inputs; `data`: where its weights go."""
    data = large_empty(packed_bytes(rows, cols, layout)) if data is None else data
    draw_codes(rng, data, layout)
    scales = np.full(padded_scales(rows), 1 / math.sqrt(cols), np.float32)
    return PackedMatrix(data, scales, rows, cols, layout)


def random_table(rng: np.random.Generator, rows: int, cols: int) -> U16:
    """bfloat16 bits, uint16[rows, cols], magnitudes from 2**-7 to 2**-5."""
    table = large_empty(2 * rows * cols).view(np.uint16)
    for at in range(0, table.size, _PIECE):
        piece = table[at : at + _PIECE]
        piece[:] = rng.integers(0, 1 << 16, piece.size, np.uint16) & 0x80FF | 0x3C00
    return table.reshape(rows, cols)


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
        self._rng = np.random.default_rng(seed)
        count = config.layers if layers is None else layers
        self._layers = []
        for i in range(count):
            report(i, count, f"random weights, layer {i + 1} of {count}")
            self._layers.append(self._layer())
        report(count, count, "random weights, head")
        self._table = random_table(self._rng, config.vocabulary, config.hidden_size)
        self._head: Head = self._table
        if head != "bf16":
            self._head = random_head(self._rng, config.vocabulary, config.hidden_size, head)

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

    def _layer(self) -> LayerWeights:
        shapes, widths = matrices(self.config), norms(self.config)
        sizes = [packed_bytes(*each, self.layout) for each in shapes.values()]
        parts = np.split(large_empty(sum(sizes)), np.cumsum(sizes[:-1]))
        packed = {
            name: random_matrix(self._rng, *each, self.layout, part)
            for (name, each), part in zip(shapes.items(), parts, strict=True)
        }
        gains = {name: np.ones(width, np.float32) for name, width in widths.items()}
        return LayerWeights(
            attention_norm=gains["attention_norm"],
            qkv=packed["qkv"],
            attention_sub_norm=gains.get("attention_sub_norm"),
            output=packed["output"],
            ffn_norm=gains["ffn_norm"],
            gate_up=packed["gate_up"],
            ffn_sub_norm=gains.get("ffn_sub_norm"),
            down=packed["down"],
        )
