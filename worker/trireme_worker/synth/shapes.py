"""Sizes of public ternary models, and of dense families that ternary models are compared with.  One table, no weights.

- 700m, 1.3b, 3b: BitNet b1.58 (arXiv:2402.17764; vocabulary of Llama)
- 2b4t: microsoft/bitnet-b1.58-2B-4T
- 8b: HF1BitLLM/Llama3-8B-1.58-100B-tokens
- 7b, 13b, 30b: Llama (arXiv:2302.13971), the sizes of BitNet's tables of speed
- 70b: Llama 3 70B
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from trireme_proto.errors import ConfigurationError
from trireme_worker.pack.config import ModelConfig

_Family = Literal["bitnet", "llama", "llama3", "2b4t"]


def _shape(name: str, family: _Family, layers: int, hidden: int, ffn: int, heads: int, kv_heads: int) -> ModelConfig:
    bitnet, modern = family in {"bitnet", "2b4t"}, family in {"2b4t", "llama3"}
    config = ModelConfig(
        name=name,
        layers=layers,
        hidden_size=hidden,
        ffn_size=ffn,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocabulary=128256 if modern else 32000,
        context=8192 if family == "llama3" else 4096,
        norm_eps=1e-5,
        rope_theta=500000.0 if modern else 10000.0,
        activation="relu2" if family == "2b4t" else "silu",
        sub_norms=bitnet,
        tied_head=bitnet,
        bos_token_id=1,
        eos_token_ids=(2,),
        parameters=1,
    )
    return replace(config, parameters=config.counted_parameters())


_ALL = (
    _shape("700m", "bitnet", 24, 1536, 4096, 24, 24),
    _shape("1.3b", "bitnet", 24, 2048, 5472, 32, 32),  # 5460 in the original: rows come in groups of 16
    _shape("3b", "bitnet", 26, 3200, 8640, 32, 32),
    _shape("2b4t", "2b4t", 30, 2560, 6912, 20, 5),
    _shape("7b", "llama", 32, 4096, 11008, 32, 32),
    _shape("8b", "llama3", 32, 4096, 14336, 32, 8),
    _shape("13b", "llama", 40, 5120, 13824, 40, 40),
    _shape("30b", "llama", 60, 6656, 17920, 52, 52),
    _shape("70b", "llama3", 80, 8192, 28672, 64, 8),
)
SHAPES: Mapping[str, ModelConfig] = {config.name: config for config in _ALL}
"""The shapes by name."""


def tiny() -> ModelConfig:
    """A shape for tests and for compiling: everything is there, nothing is large."""
    config = replace(_shape("tiny", "2b4t", 2, 64, 96, 4, 2), vocabulary=256)
    return replace(config, parameters=config.counted_parameters())


def shape(name: str) -> ModelConfig:
    """The shape of that name.  Raises ConfigurationError, which names the closest."""
    if name in SHAPES:
        return SHAPES[name]
    close = difflib.get_close_matches(name.lower(), SHAPES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigurationError(f"{name!r} is neither a shape ({', '.join(SHAPES)}) nor a folder with a pack{hint}")
