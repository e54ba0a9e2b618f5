"""Which tensors each file of a pack holds, with dtype and shape: what the sizes of a model imply.

Owns names and shapes, for the reader and the writer alike; knows nothing of bytes on a disk. The layouts are those of
`trireme_kernels.packing`, the integer heads those of `trireme_kernels.head_weights`. A file lists its matrices first:
their sizes are multiples of 64 bytes, so that everything which kernels load as vectors starts at a multiple of 64
bytes; norms and scales follow.

    layers/00000.safetensors   qkv, output, gate_up, down, the norms, <matrix>.scales
    embedding.safetensors      embedding
    head.safetensors           bf16: head (unless tied), final_norm
                               int8: head.levels, head.scales, head.totals, final_norm, also where the head is tied
                               int8+4bit: head.levels, head.codes, head.dither, head.scales, head.totals, final_norm
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from trireme_kernels.head_weights import MAX_WIDTH
from trireme_kernels.packing import SCALE_ROWS, TILE_ROWS, packed_bytes
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.jsontext import Malformed

HeadKind = Literal["bf16", "int8", "int8+4bit"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
EMBEDDING_FILE = "embedding.safetensors"
HEAD_FILE = "head.safetensors"

DTYPE_BYTES = {"U8": 1, "I8": 1, "BF16": 2, "I32": 4, "F32": 4}
"""Dtypes that a pack may hold, by their safetensors names."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor without its values."""

    dtype: str
    """One of `DTYPE_BYTES`."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def layer_file(index: int) -> str:
    """Name of a layer's file within the pack."""
    return f"layers/{index:05d}.safetensors"


def matrices(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(rows, cols) of the packed matrices of a layer: qkv is q, k, v in turn; gate_up alternates by 16 rows."""
    hidden, ffn = config.hidden_size, config.ffn_size
    return {
        "qkv": (config.query_size + 2 * config.kv_size, hidden),
        "output": (hidden, config.query_size),
        "gate_up": (2 * ffn, hidden),
        "down": (hidden, ffn),
    }


def norms(config: ModelConfig) -> dict[str, int]:
    """Widths of the norms of a layer."""
    widths = {"attention_norm": config.hidden_size, "ffn_norm": config.hidden_size}
    if config.sub_norms:
        widths |= {"attention_sub_norm": config.query_size, "ffn_sub_norm": config.ffn_size}
    return widths


def padded_scales(rows: int) -> int:
    """Scales of a packed matrix: one for 16 rows, the rows of the last tile included."""
    return -(-rows // TILE_ROWS) * (TILE_ROWS // SCALE_ROWS)


def file_tensors(config: ModelConfig, layout: str, head: str) -> dict[str, dict[str, TensorSpec]]:
    """The tensors of each safetensors file of a pack, in the order in which they lie there.

    Malformed where a head of that kind cannot be so wide.
    """
    layer = _layer_tensors(config, layout)
    table = TensorSpec("BF16", (config.vocabulary, config.hidden_size))
    last = _head_tensors(config, head) | {"final_norm": TensorSpec("F32", (config.hidden_size,))}
    files = {layer_file(i): layer for i in range(config.layers)}
    return files | {EMBEDDING_FILE: {"embedding": table}, HEAD_FILE: last}


def _head_tensors(config: ModelConfig, head: str) -> dict[str, TensorSpec]:
    rows, width = config.vocabulary, -(-config.hidden_size // 64) * 64
    if head == "bf16":
        return {} if config.tied_head else {"head": TensorSpec("BF16", (rows, config.hidden_size))}
    if config.hidden_size > MAX_WIDTH:
        raise Malformed(f"config.hidden_size is above {MAX_WIDTH}, which a head of kind {head} cannot be")
    tensors = {"head.levels": TensorSpec("I8", (rows, width))}
    if head == "int8+4bit":
        tensors["head.codes"] = TensorSpec("U8", (-(-rows // 32), width // 8, 32, 4))
        tensors["head.dither"] = TensorSpec("U8", (width,))
    return tensors | {"head.scales": TensorSpec("F32", (rows,)), "head.totals": TensorSpec("I32", (rows,))}


def _layer_tensors(config: ModelConfig, layout: str) -> dict[str, TensorSpec]:
    packed = matrices(config)
    tensors = {name: TensorSpec("U8", (packed_bytes(*shape, layout),)) for name, shape in packed.items()}
    tensors |= {name: TensorSpec("F32", (width,)) for name, width in norms(config).items()}
    return tensors | {f"{n}.scales": TensorSpec("F32", (padded_scales(rows),)) for n, (rows, _) in packed.items()}
