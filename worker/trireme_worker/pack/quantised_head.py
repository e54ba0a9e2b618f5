"""A head in integers, made from a table that is never in memory as a whole.

Owns the order in which the tensors come about: the levels are made in a first pass over the table, the codes in a
second one, and what both passes find for each row is small enough to be kept. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.head_weights import ROWS_AT_A_TIME, codes_of, draw_dither, quantise_table_rows
from trireme_worker.pack.config import ModelConfig

Bits = NDArray[np.uint16]


class QuantisedHead:
    """The head of kind `kind`, "int8" or "int8+4bit".

    `rows` gives the table's rows, uint16 [n, hidden_size] of bfloat16 bits at a time, each time it is called.
    """

    def __init__(self, config: ModelConfig, kind: str, rows: Callable[[], Iterable[Bits]]) -> None:
        self.kind, self._rows = kind, rows
        self._scales = np.empty(config.vocabulary, np.float32)
        self._totals = np.empty(config.vocabulary, np.int32)
        self._dither = draw_dither(-(-config.hidden_size // 64) * 64)

    def tensors(self) -> dict[str, Iterable[NDArray[Any]]]:
        """The tensors of the head's file by name, to be gone through once, levels first."""
        found: dict[str, Iterable[NDArray[Any]]] = {"head.levels": self._levels()}
        if self.kind == "int8+4bit":
            found |= {"head.codes": self._codes(), "head.dither": [self._dither]}
        return found | {"head.scales": [self._scales], "head.totals": [self._totals]}

    def _levels(self) -> Iterator[NDArray[np.int8]]:
        at = 0
        for levels, scales in self._quantised():
            rows = slice(at, at := at + len(levels))
            self._scales[rows], self._totals[rows] = scales, levels.sum(axis=1, dtype=np.int32)
            yield levels

    def _codes(self) -> Iterator[NDArray[np.uint8]]:
        return (codes_of(levels, self._dither) for levels, _ in self._quantised())

    def _quantised(self) -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
        return (quantise_table_rows(rows) for rows in _regrouped(self._rows(), ROWS_AT_A_TIME))


def passes(kind: str) -> int:
    """How often the table is gone through to quantise it."""
    return {"bf16": 0, "int8": 1, "int8+4bit": 2}[kind]


def _regrouped(chunks: Iterable[Bits], size: int) -> Iterator[Bits]:
    """The same rows, `size` at a time; fewer at the end."""
    kept: list[Bits] = []
    for chunk in chunks:
        kept.append(chunk)
        if sum(map(len, kept)) >= size:
            joined = np.concatenate(kept)
            whole = len(joined) - len(joined) % size
            yield from (joined[at : at + size] for at in range(0, whole, size))
            kept = [joined[whole:]]
    if any(map(len, kept)):
        yield np.concatenate(kept)
