"""Random weights, drawn as bytes of the packed layouts: no int8 weight ever exists.

Owns which bytes are possible in each layout, and where the random bits come from: NumPy's bit generators, whose streams
are promised to stay what they are, and not the distributions on top of them, which may change from version to version.
So the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import math

import numpy as np

from trireme_kernels.arrays import U8, U16
from trireme_kernels.large_pages import large_empty
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import packed_bytes
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.tensors import matrices, norms, padded_scales
from trireme_worker.pack.weights import LayerWeights

Source = np.random.BitGenerator
_PIECE = 1 << 24
"""Bytes drawn at a time, so that the random numbers take no memory to speak of beside the weights."""
FIELDS_2BIT = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)], np.uint8
)
"""The 81 bytes whose four fields are 0, 1 or 2, in an order in which the byte of the negated weights is `80 - i`."""


def source(seed: int, part: int) -> Source:
    """Random bits for one part of a model; other parts have others. Both numbers are at least 0."""
    return np.random.PCG64(np.random.SeedSequence([seed, part]))


def random_bytes(bits: Source, count: int) -> bytes:
    """`count` bytes; what is left of the last 8 is thrown away."""
    return bits.random_raw(-(-count // 8)).astype("<u8", copy=False).tobytes()[:count]


def draw_codes(bits: Source, data: U8, layout: str) -> None:
    """Fill packed weights, nearly uniform over the bytes that the layout allows, with as many 1 as -1."""
    for at in range(0, data.size, _PIECE):
        piece = data[at : at + _PIECE]
        piece[:] = np.frombuffer(random_bytes(bits, piece.size).translate(_CODES[layout]), np.uint8)


def random_matrix(bits: Source, rows: int, cols: int, layout: str, data: U8 | None = None) -> PackedMatrix:
    """A ternary matrix whose outputs are about as large as its inputs; `data`: where its weights go."""
    data = large_empty(packed_bytes(rows, cols, layout)) if data is None else data
    draw_codes(bits, data, layout)
    scales = np.full(padded_scales(rows), 1 / math.sqrt(cols), np.float32)
    return PackedMatrix(data, scales, rows, cols, layout)


def random_rows(bits: Source, rows: int, cols: int) -> U16:
    """bfloat16 bits, uint16[rows, cols], magnitudes from 2**-7 to 2**-5."""
    drawn = np.frombuffer(random_bytes(bits, 2 * rows * cols), "<u2").astype(np.uint16, copy=False)
    return drawn.reshape(rows, cols) & np.uint16(0x80FF) | np.uint16(0x3C00)


def random_table(bits: Source, rows: int, cols: int) -> U16:
    """`random_rows` in large pages of memory, drawn piece by piece."""
    table = large_empty(2 * rows * cols).view(np.uint16).reshape(rows, cols)
    for begin, end in row_pieces(rows, cols):
        table[begin:end] = random_rows(bits, end - begin, cols)
    return table


def row_pieces(rows: int, cols: int) -> list[tuple[int, int]]:
    """Ranges of rows that a table is drawn in: a multiple of 4, so that no random byte is thrown away in between."""
    step = max(4, _PIECE // (2 * cols) // 4 * 4)
    return [(at, min(at + step, rows)) for at in range(0, rows, step)]


def layer_bytes(config: ModelConfig, layout: str) -> int:
    """Bytes of a layer's packed matrices."""
    return sum(packed_bytes(rows, cols, layout) for rows, cols in matrices(config).values())


def random_layer(bits: Source, config: ModelConfig, layout: str, memory: U8 | None = None) -> LayerWeights:
    """A layer that leaves activations about as large as they come; `memory`: uint8[layer_bytes], where its weights go.

    Every matrix reads what a norm has brought to magnitude 1, and what it adds to the residual stream is of magnitude 1
    at most, so that activations grow as the square root of the layers.
    """
    shapes, widths = matrices(config), norms(config)
    sizes = [packed_bytes(*each, layout) for each in shapes.values()]
    memory = large_empty(sum(sizes)) if memory is None else memory
    parts = np.split(memory, np.cumsum(sizes[:-1]))
    packed = {
        name: random_matrix(bits, *each, layout, part) for (name, each), part in zip(shapes.items(), parts, strict=True)
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


def _every_byte(codes: U8) -> bytes:
    """256 bytes: all codes equally often, and what is missing from the middle, where a code's negation is, too."""
    whole, rest = divmod(256, codes.size)
    middle = (codes.size - rest) // 2
    return bytes(codes) * whole + bytes(codes[middle : middle + rest])


_CODES = {"2bit": _every_byte(FIELDS_2BIT), "1.6bit": _every_byte(np.arange(243, dtype=np.uint8))}
