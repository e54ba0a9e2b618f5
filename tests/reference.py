"""What a ternary checkpoint computes, in plain NumPy, straight from its Hugging Face files.

Independent of the product: its own reading, unpacking and quantising, no pack, no kernel. Two modes:
    integer   int8 activations times ternary weights, exact sums, one float32 rescale: what our kernels promise
    float     activations and weights de-quantised, float32 products: what transformers does when loaded as float32
`half_kv` rounds keys and values to IEEE half, as a KV cache of that type does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

Float = NDArray[np.float32]
F = np.float32


@dataclass(frozen=True)
class Projection:
    """A linear layer: ternary weights as float32 [out, in], and the scale that multiplies."""

    ternary: Float
    scale: np.float32


class Reference:
    """The model in `folder`. Hidden states are float32 [T, hidden]."""

    def __init__(self, folder: Path, *, integer: bool, half_kv: bool = False) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.integer, self.half_kv = integer, half_kv
        self.bitnet = config["model_type"] == "bitnet"
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config.get("num_key_value_heads") or self.heads
        self.head_dim: int = config.get("head_dim") or config["hidden_size"] // self.heads
        self.theta = F((config.get("rope_parameters") or config)["rope_theta"])
        self.eps = F(config["rms_norm_eps"])
        self.tensors = read_tensors(folder)
        divides = config["quantization_config"].get("linear_class", "bitlinear") == "bitlinear"
        names = [name.removesuffix(".weight") for name in self.tensors if name.endswith("_proj.weight")]
        self.projections = {name: self._projection(name, divides) for name in names}
        self.embedding = self.tensors["model.embed_tokens.weight"]
        self.table = self.embedding if config["tie_word_embeddings"] else self.tensors["lm_head.weight"]

    def logits(self, token_ids: list[int]) -> Float:
        """[T, vocabulary] of one sequence."""
        hidden = self.embedding[token_ids]
        for layer in range(self.layers):
            hidden = self.block(layer, hidden)["out"]
        return self.norm(hidden, "model.norm") @ self.table.T

    def block(self, layer: int, hidden: Float) -> dict[str, Float]:
        """One layer, over positions 0 to T-1 of one sequence: every intermediate result by name, `out` the last."""
        prefix = f"model.layers.{layer}."
        at, steps = f"{prefix}self_attn.", {"hidden": hidden}
        steps["normed"] = self.norm(hidden, f"{prefix}input_layernorm")
        steps["qkv"] = np.concatenate([self.linear(steps["normed"], f"{at}{n}_proj") for n in "qkv"], axis=1)
        steps["attended"] = self.attention(steps["qkv"])
        steps["o_in"] = self.norm(steps["attended"], f"{at}attn_sub_norm") if self.bitnet else steps["attended"]
        steps["o"] = self.linear(steps["o_in"], f"{at}o_proj")
        steps["middle"] = hidden + steps["o"]
        steps["ffn_normed"] = self.norm(steps["middle"], f"{prefix}post_attention_layernorm")
        steps["gate"], steps["up"] = (self.linear(steps["ffn_normed"], f"{prefix}mlp.{n}_proj") for n in ("gate", "up"))
        steps["gated"] = self.gated(steps["gate"], steps["up"])
        steps["down_in"] = self.norm(steps["gated"], f"{prefix}mlp.ffn_sub_norm") if self.bitnet else steps["gated"]
        steps["down"] = self.linear(steps["down_in"], f"{prefix}mlp.down_proj")
        steps["out"] = steps["middle"] + steps["down"]
        return steps

    def norm(self, x: Float, name: str) -> Float:
        """RMSNorm."""
        mean = np.mean(x * x, axis=-1, keepdims=True, dtype=F)
        return self.tensors[f"{name}.weight"] * (x * (F(1) / np.sqrt(mean + self.eps)))

    def linear(self, x: Float, name: str) -> Float:
        """Activations to int8 per token, round half to even; 127 times the reciprocal, as torch evaluates 127 / t."""
        projection = self.projections[name]
        top = np.maximum(np.abs(x).max(axis=-1, keepdims=True), F(1e-5))
        scale = (F(1) / top) * F(127)
        levels = np.clip(np.rint(x * scale), -128, 127)
        if self.integer:  # sums stay below 2**24, so that a float32 product of integers is exact
            return (levels @ projection.ternary.T) * (projection.scale / scale)
        return ((levels / scale) @ projection.ternary.T) * projection.scale

    def attention(self, qkv: Float) -> Float:
        """Causal grouped-query attention over rotated queries and keys: [T, heads * head_dim]."""
        tokens, split = len(qkv), (self.heads + self.kv_heads) * self.head_dim
        q_and_k = self.rotated(qkv[:, :split].reshape(tokens, -1, self.head_dim))
        q, k = q_and_k[:, : self.heads], q_and_k[:, self.heads :]
        v = qkv[:, split:].reshape(tokens, self.kv_heads, self.head_dim)
        if self.half_kv:
            k, v = k.astype(np.float16).astype(F), v.astype(np.float16).astype(F)
        k, v = (np.repeat(x, self.heads // self.kv_heads, axis=1).transpose(1, 0, 2) for x in (k, v))
        scores = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) * F(self.head_dim**-0.5)
        scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, F(-np.inf))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(tokens, -1)

    def rotated(self, x: Float) -> Float:
        """Rotary embedding of [T, heads, head_dim] at positions 0 to T-1; dimension i turns with i + head_dim / 2."""
        exponents = np.arange(0, self.head_dim, 2, dtype=F) / F(self.head_dim)
        angles = np.arange(len(x), dtype=F)[:, None] * (F(1) / self.theta**exponents)
        cos, sin = (np.tile(f(angles), 2)[:, None].astype(F) for f in (np.cos, np.sin))
        low, high = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-high, low], axis=-1) * sin

    def gated(self, gate: Float, up: Float) -> Float:
        """relu(gate)^2 * up, or silu(gate) * up."""
        if self.bitnet:
            return np.square(np.maximum(gate, F(0))) * up
        return gate / (F(1) + np.exp(-gate)) * up

    def _projection(self, name: str, divides: bool) -> Projection:
        weight = self.tensors[f"{name}.weight"]
        if weight.dtype != np.uint8:
            mean = max(F(np.abs(weight).mean(dtype=np.float64)), F(1e-5))
            return Projection(np.clip(np.rint(weight * (F(1) / mean)), -1, 1), F(1) / (F(1) / mean))
        quarters = [(weight >> 2 * i & 3).astype(F) - 1 for i in range(4)]
        scale = F(self.tensors[f"{name}.weight_scale"].reshape(-1)[0])
        return Projection(np.concatenate(quarters), F(1) / scale if divides else scale)


def read_tensors(folder: Path) -> dict[str, NDArray[Any]]:
    """All tensors of all shards; floats as float32."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in safetensors.deserialize(path.read_bytes()):
            found[name] = _array(entry["dtype"], bytes(entry["data"])).reshape(entry["shape"])
    return found


def _array(dtype: str, data: bytes) -> NDArray[Any]:
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(F)
    values = np.frombuffer(data, {"U8": np.uint8, "F16": np.float16, "F32": F}[dtype])
    return values if dtype == "U8" else values.astype(F)
