"""What a model costs a stage, out of its sizes: bytes of its packed files, multiply-adds of its matrices.

Knows the layouts and kinds of heads; placement itself gets numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trireme_coordinator.placement import ModelCosts
from trireme_kernels import KvFormat
from trireme_worker.pack import Pack
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.tensors import matrices, norms, padded_scales
from trireme_worker.synth.shapes import SHAPES, shape
from trireme_worker.synth.synthesis import HEAD, LAYOUT
from trireme_worker.synth.weights import layer_bytes

FLOAT_MACS = 4
"""int8 multiply-adds in the time of a float32 one: as many as fit a register beside it."""


@dataclass(frozen=True, slots=True)
class _Head:
    """Bytes held and read, and int8 multiply-adds, for each weight."""

    held: float
    read: float
    macs: float


_HEADS: Mapping[str, _Head] = {
    "bf16": _Head(2.0, 2.0, FLOAT_MACS),
    "int8": _Head(1.0, 1.0, 1.0),
    "int8+4bit": _Head(1.5, 0.5, 1.0),  # few rows are read again with 8 bits
}


def model_costs(
    config: ModelConfig, *, layout: str = LAYOUT, head: str = HEAD, kv_dtype: str = "float32"
) -> ModelCosts:
    """The costs of a model whose weights lie in `layout`, with that kind of head, and keys and values so kept."""
    kv = KvFormat(config.kv_heads, config.head_dim, kv_dtype).token_bytes
    weights = sum(rows * cols for rows, cols in matrices(config).values())
    table, kind = config.vocabulary * config.hidden_size, _HEADS[head]
    gains = 4 * (sum(norms(config).values()) + sum(padded_scales(rows) for rows, _ in matrices(config).values()))
    return ModelCosts(
        name=config.name,
        hidden_size=config.hidden_size,
        context=config.context,
        layer_bytes=(layer_bytes(config, layout) + gains,) * config.layers,
        layer_macs=(weights,) * config.layers,
        embedding_bytes=2 * table,
        head_bytes=int(kind.held * table),
        head_read_bytes=int(kind.read * table),
        head_macs=int(kind.macs * table),
        shared_bytes=2 * table if config.tied_head and head == "bf16" else 0,
        kv_bytes=kv,
        attention_macs=2 * FLOAT_MACS * config.query_size,
    )


def costs_of(
    model: str, *, layout: str | None = None, head: str | None = None, kv_dtype: str = "float32"
) -> ModelCosts:
    """Of a shape's name or a pack's folder; without a layout or a head, as the pack has them. ConfigurationError: it is
    neither; PackNotFound, PackCorrupt.
    """
    if model not in SHAPES and Path(model).is_dir():
        pack = Pack.open(model, verify=False)
        return model_costs(pack.config, layout=layout or pack.layout, head=head or pack.head_kind, kv_dtype=kv_dtype)
    return model_costs(shape(model), layout=layout or LAYOUT, head=head or HEAD, kv_dtype=kv_dtype)
