"""Ternary matrix times tokens, alone: the largest matrix of the 70b shape, from memory, in both layouts.

Each thread multiplies its rows several times in a row without waiting for the others, so that no start of a thread is
in the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from trireme_kernels import ternary_linear
from trireme_kernels.isa import ISA
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import Layout, preferred_layout
from trireme_worker.bench.interleave import Timing, Trial
from trireme_worker.bench.limits import Peaks
from trireme_worker.pack.tensors import matrices
from trireme_worker.synth.shapes import SHAPES
from trireme_worker.synth.weights import random_matrix, source
from trireme_worker.team import Team

LAYOUTS: tuple[Layout, ...] = ("2bit", "1.6bit")
VECTOR_REPEATS = 4
_BATCHES = {4: 1, 8: 1, 128: 1}
"""Tokens, and how often they are multiplied in a trial."""


class Products:
    """Products of one matrix, as trials: with one token in both layouts, with more in the faster one."""

    def __init__(self, threads: Sequence[int], rows: int | None = None, cols: int | None = None) -> None:
        self.threads = tuple(sorted(set(threads)))
        big = matrices(SHAPES["70b"])["gate_up"]
        bits = source(0, 0)
        shape = rows or big[0], cols or big[1]
        self._matrices = {layout: random_matrix(bits, *shape, layout) for layout in LAYOUTS}
        self._teams = {n: Team(n) for n in self.threads}

    def trials(self) -> dict[str, Trial]:
        """One token: amounts are bytes. More: amounts are multiply-adds."""
        found = {}
        for n in self.threads:
            for layout, w in self._matrices.items():
                found[_vector(layout, n)] = Trial(self._run(w, 1, n, VECTOR_REPEATS), w.nbytes * VECTOR_REPEATS)
            w = self._matrices[preferred_layout()]
            for tokens, repeats in _BATCHES.items():
                found[_batch(tokens, n)] = Trial(self._run(w, tokens, n, repeats), repeats * tokens * w.rows * w.cols)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_fault: object) -> None:
        """Ends the threads."""
        for team in self._teams.values():
            team.close()

    def _run(self, w: PackedMatrix, tokens: int, threads: int, repeats: int) -> Work:
        return Work(w, tokens, self._teams[threads], repeats)


class Work:
    """A product to be run again and again."""

    def __init__(self, w: PackedMatrix, tokens: int, team: Team, repeats: int) -> None:
        self._w, self._team, self._repeats = w, team, repeats
        self._q = (np.arange(tokens * w.padded_cols) % 255 - 127).astype(np.int8).reshape(tokens, w.padded_cols)
        self._scale, self._total = np.ones(tokens, np.float32), self._q.sum(axis=1, dtype=np.int32)
        self._out = np.zeros((tokens, w.padded_rows), np.float32)

    def __call__(self) -> None:
        self._team.run(self._w.tiles, self._share)

    def _share(self, begin: int, end: int) -> None:
        for _ in range(self._repeats):
            ternary_linear(self._w, self._q, self._scale, self._total, self._out, begin, end)


def figures(timings: Mapping[str, Timing], peaks: Peaks) -> tuple[dict[str, float], dict[str, str]]:
    """What the lines of the table of targets say, and why some say nothing."""
    measured: dict[str, float] = {}
    missing: dict[str, str] = {}
    layout = preferred_layout()
    for n, name in ((1, "1"), (max(peaks.read_gb_s), "all")):
        measured[f"vector_of_read_{name}"] = timings[_vector(layout, n)].rate / 1e9 / peaks.read_gb_s[n]
        faster = timings[_vector("2bit", n)].median / timings[_vector("1.6bit", n)].median
        if ISA.look_up:
            measured[f"base3_over_2bit_{name}"] = faster
        else:
            missing[f"base3_over_2bit_{name}"] = f"for CPUs with VBMI; here {faster:.2f}, so 2-bit is used"
        for tokens in _BATCHES:
            measured[f"tokens{tokens}_of_peak_{name}"] = timings[_batch(tokens, n)].rate / 1e9 / peaks.dot_gmac_s[n]
    return measured, missing


def _vector(layout: str, threads: int) -> str:
    return f"x vector, {layout}, {threads} threads"


def _batch(tokens: int, threads: int) -> str:
    return f"x {tokens} tokens, {threads} threads"
