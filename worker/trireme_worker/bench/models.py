"""What is measured when a command says SHAPE or PACK: random weights at a shape, or an opened pack."""

from __future__ import annotations

from pathlib import Path

from trireme_kernels.head_weights import HeadWeights, codes_of, draw_dither, quantise_head
from trireme_kernels.packing import preferred_layout
from trireme_proto.errors import ConfigurationError
from trireme_worker.bench import memory
from trireme_worker.bench.engine import HEAD, Weights
from trireme_worker.bench.interleave import Report, silent
from trireme_worker.bench.random_weights import RandomPack
from trireme_worker.pack import LayerWeights, ModelConfig, Pack
from trireme_worker.pack.reader import Head
from trireme_worker.synth.shapes import SHAPES, shape
from trireme_worker.synth.weights import layer_bytes

_HEAD_BYTES = {"bf16": 0.0, "int8": 1.0, "int8+4bit": 1.5}
"""For each weight, beside the embedding, which a bfloat16 head shares."""
WEIGHTS_BYTES = 2 << 30
"""Larger models are timed by as many of their layers as fit in here: far more than any cache."""


def find(model: str, layout: str | None, report: Report = silent, *, head: str | None = None) -> tuple[Weights, int]:
    """The weights of a shape's name or a pack's folder, and how many of its layers to time.

    `layout`: "2bit" or "1.6bit"; None: the faster one on this CPU for a shape, the pack's own for a pack. `head`:
    "bf16", "int8" or "int8+4bit"; None: the last for a shape, the pack's own for a pack. Raises ConfigurationError,
    PackNotFound, PackCorrupt.
    """
    if model not in SHAPES and Path(model).is_dir():
        pack = Pack.open(model, progress=lambda done, total: report(done, total, "checking the pack"))
        if layout in (None, pack.layout) and head in (None, pack.head_kind):
            return pack, pack.config.layers
        return Relaid(pack, layout or pack.layout, head or pack.head_kind, report), pack.config.layers
    config, chosen, kind = shape(model), layout or preferred_layout(), head or HEAD
    layers = timed_layers(config, chosen)
    tables = config.vocabulary * config.hidden_size * (2 + _HEAD_BYTES[kind])
    memory.require(config.name, layers * layer_bytes(config, chosen) + tables)
    return RandomPack(config, chosen, head=kind, layers=layers, report=report), layers


def timed_layers(config: ModelConfig, layout: str, budget: int = WEIGHTS_BYTES) -> int:
    """As many of a model's layers as `budget` bytes hold, at least one."""
    return max(1, min(config.layers, budget // layer_bytes(config, layout)))


class Relaid:
    """A pack whose matrices were brought into another layout, or whose head was quantised, in memory."""

    def __init__(self, pack: Pack, layout: str, head: str, report: Report = silent) -> None:
        self.config, self.layout, self.head_kind = pack.config, layout, head
        self.embedding, self.final_norm = pack.embedding, pack.final_norm
        self._head = _head_of(pack, head)
        self._layers = []
        for i in range(pack.config.layers):
            report(i, pack.config.layers, f"new layout, layer {i + 1} of {pack.config.layers}")
            self._layers.append(pack.layer(i).relaid(layout))

    def head(self) -> Head:
        """The head in the kind that was asked for."""
        return self._head

    def layer(self, index: int) -> LayerWeights:
        """Weights of layer `index`."""
        return self._layers[index]


def _head_of(pack: Pack, kind: str) -> Head:
    """The pack's head in another kind; integers cannot become bfloat16 again."""
    found = pack.head()
    if kind == pack.head_kind:
        return found
    if not isinstance(found, HeadWeights):
        return quantise_head(found, kind)
    if kind == "bf16":
        raise ConfigurationError(f"the head of this pack is {pack.head_kind}; it cannot be measured as bf16")
    exact = found.hidden_size, found.levels, found.scales, found.totals
    dither = draw_dither(found.width)
    return HeadWeights(*exact) if kind == "int8" else HeadWeights(*exact, codes_of(found.levels, dither), dither)
