"""The sizes of a layer and what its weights look like to `layer_program.py`; nothing is computed here."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trireme_kernels.arrays import F32, require
from trireme_kernels.gates import ACTIVATIONS
from trireme_kernels.matrix import PackedMatrix


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Sizes and choices that all layers of a model share.

    hidden_size; ffn_size, a multiple of 16; heads, a multiple of kv_heads; head_dim, even; norm_eps; activation,
    "relu2" or "silu".  Raises `KernelInputError`.
    """

    hidden_size: int
    ffn_size: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    activation: str

    def __post_init__(self) -> None:
        """Check what compiled code relies on."""
        require("hidden_size", self.hidden_size > 0, "must be positive")
        require("ffn_size", self.ffn_size > 0 and self.ffn_size % 16 == 0, "must be a positive multiple of 16")
        require("kv_heads", self.kv_heads > 0, "must be positive")
        require("heads", self.heads > 0 and self.heads % self.kv_heads == 0, "must be a positive multiple of kv_heads")
        require("head_dim", self.head_dim > 0 and self.head_dim % 2 == 0, "must be positive and even")
        require("norm_eps", 0 <= self.norm_eps < np.inf, "must be finite and not negative")
        require("activation", self.activation in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}")

    @property
    def query_size(self) -> int:
        """Columns of the queries: heads * head_dim."""
        return self.heads * self.head_dim

    def matrices(self) -> dict[str, tuple[int, int]]:
        """(rows, cols) of each packed matrix of a layer."""
        qkv = self.query_size + 2 * self.kv_heads * self.head_dim
        return {
            "qkv": (qkv, self.hidden_size),
            "output": (self.hidden_size, self.query_size),
            "gate_up": (2 * self.ffn_size, self.hidden_size),
            "down": (self.hidden_size, self.ffn_size),
        }

    def norms(self) -> dict[str, int]:
        """Widths of the norms of a layer; the sub-norms may be missing."""
        widths = {"attention_norm": self.hidden_size, "ffn_norm": self.hidden_size}
        return widths | {"attention_sub_norm": self.query_size, "ffn_sub_norm": self.ffn_size}


class Layer(Protocol):
    """The weights of one layer: gains float32, matrices of `LayerShape.matrices`; gate_up by `interleave_gate_up`."""

    @property
    def attention_norm(self) -> F32: ...
    @property
    def attention_sub_norm(self) -> F32 | None: ...
    @property
    def ffn_norm(self) -> F32: ...
    @property
    def ffn_sub_norm(self) -> F32 | None: ...
    @property
    def qkv(self) -> PackedMatrix: ...
    @property
    def output(self) -> PackedMatrix: ...
    @property
    def gate_up(self) -> PackedMatrix: ...
    @property
    def down(self) -> PackedMatrix: ...
