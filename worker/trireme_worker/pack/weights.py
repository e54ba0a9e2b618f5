"""The weights of one layer, as the blocks compute with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.large_pages import large_empty
from trireme_kernels.local_weights import local_copies
from trireme_kernels.matrix import PackedMatrix, relayout
from trireme_kernels.packing import packed_bytes
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.tensors import matrices

Float = NDArray[np.float32]
_MATRICES = ("qkv", "output", "gate_up", "down")


@dataclass(frozen=True, eq=False, slots=True)
class LayerWeights:
    """One layer. Norms are float32; H = hidden_size, F = ffn_size, Q = heads * head_dim."""

    attention_norm: Float
    """[H]"""
    qkv: PackedMatrix
    """Rows of q, then k, then v; columns H."""
    attention_sub_norm: Float | None
    """[Q], or None where the model has no sub-norms."""
    output: PackedMatrix
    """H x Q."""
    ffn_norm: Float
    """[H]"""
    gate_up: PackedMatrix
    """2F x H: 16 gate rows, 16 up rows, and so on."""
    ffn_sub_norm: Float | None
    """[F], or None."""
    down: PackedMatrix
    """H x F."""

    def relaid(self, layout: str | None) -> LayerWeights:
        """With the matrices in another layout, together in memory; itself where that is None or what it has."""
        if layout in {None, self.qkv.layout}:
            return self
        old: list[PackedMatrix] = [getattr(self, name) for name in _MATRICES]
        sizes = [packed_bytes(m.rows, m.cols, str(layout)) for m in old]
        parts = np.split(large_empty(sum(sizes)), np.cumsum(sizes[:-1]))
        new = (relayout(m, str(layout), part) for m, part in zip(old, parts, strict=True))
        changed: dict[str, Any] = dict(zip(_MATRICES, new, strict=True))
        return replace(self, **changed)

    def local(self, cpus: Sequence[int]) -> LayerWeights:
        """With the matrices copied to the memory nearest to the CPUs of the threads; itself where `cpus` is empty."""
        if not cpus:
            return self
        new = local_copies([getattr(self, name) for name in _MATRICES], cpus)
        changed: dict[str, Any] = dict(zip(_MATRICES, new, strict=True))
        return replace(self, **changed)

    def arrays(self, config: ModelConfig) -> dict[str, NDArray[np.uint8] | Float]:
        """The arrays by their names in a pack's layer file."""
        found: dict[str, NDArray[np.uint8] | Float] = {}
        for name in matrices(config):
            matrix: PackedMatrix = getattr(self, name)
            found |= {name: matrix.data, f"{name}.scales": matrix.scales}
        gains = {n: getattr(self, n) for n in ("attention_norm", "attention_sub_norm", "ffn_norm", "ffn_sub_norm")}
        return found | {name: gain for name, gain in gains.items() if gain is not None}
