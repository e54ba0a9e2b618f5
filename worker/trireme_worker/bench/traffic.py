"""Bytes that a step must read from memory: the sum over the arrays that its kernels touch.

Activations, rotary tables and scratch stay in the caches and do not count. Keys and values count once for each sequence
and position, weights once for a step, however many sequences share it.
"""

from __future__ import annotations

from dataclasses import dataclass

from trireme_worker.pack import LayerWeights, ModelConfig


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes that one step reads.

    layer  of the weights of one layer
    kv     of keys and values of one layer, all sequences together
    head   of the head's weights
    rows   of the embedding rows of the step's tokens
    """

    layer: int
    kv: int
    head: int
    rows: int

    def total(self, layers: int) -> int:
        """Of a model with so many layers."""
        return layers * (self.layer + self.kv) + self.head + self.rows


def layer_bytes(weights: LayerWeights, config: ModelConfig) -> int:
    """Matrices with scales and gains of one layer."""
    return sum(array.nbytes for array in weights.arrays(config).values())
