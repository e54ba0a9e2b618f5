"""What is measured when a command says SHAPE or PACK: random weights at a shape, or an opened pack."""

from __future__ import annotations

from pathlib import Path

from trireme_kernels.packing import preferred_layout
from trireme_worker.bench import memory
from trireme_worker.bench.engine import Weights
from trireme_worker.bench.interleave import Report, silent
from trireme_worker.bench.random_weights import RandomPack
from trireme_worker.pack import LayerWeights, ModelConfig, Pack
from trireme_worker.synth.shapes import SHAPES, shape
from trireme_worker.synth.weights import layer_bytes

WEIGHTS_BYTES = 2 << 30
"""Larger models are timed by as many of their layers as fit in here: far more than any cache."""


def find(model: str, layout: str | None, report: Report = silent) -> tuple[Weights, int]:
    """The weights of a shape's name or a pack's folder, and how many of its layers to time.

    `layout`: "2bit" or "1.6bit"; None: the faster one on this CPU for a shape, the pack's own for a pack. Raises
    ConfigurationError, PackNotFound, PackCorrupt.
    """
    if model not in SHAPES and Path(model).is_dir():
        pack = Pack.open(model, progress=lambda done, total: report(done, total, "checking the pack"))
        relaid = pack if layout in (None, pack.layout) else Relaid(pack, str(layout), report)
        return relaid, pack.config.layers
    config, chosen = shape(model), layout or preferred_layout()
    layers = timed_layers(config, chosen)
    memory.require(config.name, layers * layer_bytes(config, chosen) + config.vocabulary * config.hidden_size * 2)
    return RandomPack(config, chosen, layers=layers, report=report), layers


def timed_layers(config: ModelConfig, layout: str, budget: int = WEIGHTS_BYTES) -> int:
    """As many of a model's layers as `budget` bytes hold, at least one."""
    return max(1, min(config.layers, budget // layer_bytes(config, layout)))


class Relaid:
    """A pack whose matrices were brought into another layout, in memory."""

    def __init__(self, pack: Pack, layout: str, report: Report = silent) -> None:
        self.config, self.layout = pack.config, layout
        self.embedding, self.head, self.final_norm = pack.embedding, pack.head, pack.final_norm
        self._layers = []
        for i in range(pack.config.layers):
            report(i, pack.config.layers, f"new layout, layer {i + 1} of {pack.config.layers}")
            self._layers.append(pack.layer(i).relaid(layout))

    def layer(self, index: int) -> LayerWeights:
        """Weights of layer `index`."""
        return self._layers[index]
