"""Writes Hugging Face checkpoints of ternary models with NumPy and safetensors alone.

`random_checkpoint` makes small ones of each kind; `exported` turns a pack back into a checkpoint. Random numbers come
from `RandomState`, whose streams NumPy has frozen: recorded files rely on the same weights for ever.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trireme_kernels as kernels
from trireme_worker.pack import Pack

Float = NDArray[np.float32]
Tensors = dict[str, tuple[str, NDArray[Any]]]
"""Name -> safetensors dtype and values as they are stored (bfloat16 as uint16)."""


@dataclass(frozen=True)
class Kind:
    """Which of the forms that ternary checkpoints come in."""

    model_type: str = "bitnet"
    linear_class: str = "autobitlinear"
    packed: bool = False
    dtype: str = "BF16"
    """Of all that is not packed."""

    @property
    def divides(self) -> bool:
        return self.linear_class == "bitlinear"


KINDS = {
    "master-bf16": Kind(),
    "master-f16": Kind(dtype="F16"),
    "master-f32": Kind(dtype="F32"),
    "packed": Kind(packed=True),
    "llama-bitlinear": Kind("llama", "bitlinear", packed=True),
    "llama-master": Kind("llama"),
}

SMALL = {
    "vocab_size": 200,
    "hidden_size": 96,
    "intermediate_size": 208,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Sizes that no padding rule divides evenly: 160 rows of q, k, v; 208 of 32 * 6.5; 96 of 16 * 6."""


def hf_config(kind: Kind, sizes: dict[str, Any]) -> dict[str, Any]:
    """config.json."""
    bitnet = kind.model_type == "bitnet"
    quantisation: dict[str, Any] = {"quant_method": "bitnet", "modules_to_not_convert": None}
    if not kind.divides:
        mode = "offline" if kind.packed else "online"
        quantisation |= {"linear_class": kind.linear_class, "quantization_mode": mode}
    return sizes | {
        "architectures": ["BitNetForCausalLM" if bitnet else "LlamaForCausalLM"],
        "model_type": kind.model_type,
        "hidden_act": "relu2" if bitnet else "silu",
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": bitnet,
        "quantization_config": quantisation,
    }


def random_checkpoint(folder: Path, kind: Kind, seed: int, sizes: dict[str, Any] = SMALL) -> Path:
    """A checkpoint with random weights; its tokenizer.json is a stub."""
    draw, config = np.random.RandomState(seed), hf_config(kind, sizes)  # its streams are frozen
    hidden, ffn, dim = (config[name] for name in ("hidden_size", "intermediate_size", "head_dim"))
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    tensors: Tensors = {}

    def dense(name: str, *shape: int, mean: float = 0.0, spread: float = 1.0) -> None:
        tensors[f"{name}.weight"] = stored(mean + spread * draw.standard_normal(shape), kind.dtype)

    def projection(name: str, rows: int, cols: int) -> None:
        weights = 0.05 * draw.standard_normal((rows, cols))
        tensors.update(packed_projection(name, weights, kind) if kind.packed else {})
        if not kind.packed:
            tensors[f"{name}.weight"] = stored(weights, kind.dtype)

    dense("model.embed_tokens", config["vocab_size"], hidden, spread=0.2)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
        if kind.model_type == "bitnet":
            norms |= {"self_attn.attn_sub_norm": q, "mlp.ffn_sub_norm": ffn}
        for name, width in norms.items():
            dense(f"{prefix}{name}", width, mean=1.0, spread=0.2)
        for name, rows in {"q": q, "k": kv, "v": kv}.items():
            projection(f"{prefix}self_attn.{name}_proj", rows, hidden)
        projection(f"{prefix}self_attn.o_proj", hidden, q)
        projection(f"{prefix}mlp.gate_proj", ffn, hidden)
        projection(f"{prefix}mlp.up_proj", ffn, hidden)
        projection(f"{prefix}mlp.down_proj", hidden, ffn)
    dense("model.norm", hidden, mean=1.0, spread=0.2)
    if not config["tie_word_embeddings"]:
        dense("lm_head", config["vocab_size"], hidden, spread=0.3)
    return write_checkpoint(folder, config, tensors)


def packed_projection(name: str, weights: NDArray[Any], kind: Kind) -> Tensors:
    """uint8 weights, four rows a quarter of the matrix apart in a byte, and the scale of the kind."""
    mean = np.abs(weights).mean()
    ternary = np.clip(np.rint(weights / mean), -1, 1)
    scale = stored(np.array([1 / mean if kind.divides else mean]), kind.dtype)
    return {f"{name}.weight": ("U8", pack_quarters(ternary)), f"{name}.weight_scale": scale}


def pack_quarters(ternary: NDArray[Any]) -> NDArray[np.uint8]:
    """{-1, 0, 1} [R, C] -> uint8 [R/4, C]."""
    quarters = (ternary + 1).astype(np.uint8).reshape(4, -1, ternary.shape[1])
    return quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6


def stored(values: NDArray[Any], dtype: str) -> tuple[str, NDArray[Any]]:
    """Values rounded to a safetensors dtype."""
    if dtype == "BF16":
        bits = values.astype(np.float32).view(np.uint32)
        return dtype, ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return dtype, values.astype({"F16": np.float16, "F32": np.float32}[dtype])


def write_checkpoint(folder: Path, config: dict[str, Any], tensors: Tensors, *, shards: int = 1) -> Path:
    """config.json, a stub of a tokenizer, and the tensors in one file or in shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    names = list(tensors)
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    files = files if shards > 1 else ["model.safetensors"]
    for i, file in enumerate(files):
        (folder / file).write_bytes(serialised({n: tensors[n] for n in names[i::shards]}))
    if shards > 1:
        index = {"metadata": {}, "weight_map": {n: files[i % shards] for i, n in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def serialised(tensors: Tensors) -> bytes:
    """A safetensors file."""
    entries, at = {}, 0
    for name, (dtype, values) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at := at + values.nbytes]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + b"".join(values.tobytes() for _, values in tensors.values())


def exported(pack: Pack, folder: Path, kind: Kind) -> Path:
    """A BitNet pack as a checkpoint that another implementation can load: packed, or with master weights.

    Master weights are made so that their mean magnitude is the scale: zeros stay, the others are all of one magnitude.
    """
    config, tensors = pack.config, {}
    tensors["model.embed_tokens.weight"] = ("BF16", np.array(pack.embedding()))
    for index in range(config.layers):
        prefix, weights = f"model.layers.{index}.", pack.layer(index)
        norms = {
            "input_layernorm": weights.attention_norm,
            "self_attn.attn_sub_norm": weights.attention_sub_norm,
            "post_attention_layernorm": weights.ffn_norm,
            "mlp.ffn_sub_norm": weights.ffn_sub_norm,
        }
        tensors |= {f"{prefix}{name}.weight": stored(np.array(gain), kind.dtype) for name, gain in norms.items()}
        for name, (ternary, scale) in _projections(pack, index).items():
            tensors |= _exported_projection(f"{prefix}{name}", ternary, scale, kind)
    tensors["model.norm.weight"] = stored(np.array(pack.final_norm()), kind.dtype)
    sizes = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_ids[0],
    }
    whole = hf_config(kind, sizes) | {"rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"}}
    return write_checkpoint(folder, whole, tensors)


def _projections(pack: Pack, index: int) -> dict[str, tuple[NDArray[np.int8], np.float32]]:
    """Ternary weights and scale of each projection of a layer, as the checkpoint names them."""
    config, weights = pack.config, pack.layer(index)
    parts = {}
    for name, matrix in (("qkv", weights.qkv), ("o", weights.output), ("gu", weights.gate_up), ("down", weights.down)):
        parts[name] = kernels.unpack(matrix.data, matrix.rows, matrix.cols), matrix.scales
    qkv, scales = parts["qkv"]
    pairs = parts["gu"][0].reshape(-1, 2, 16, config.hidden_size)
    begin, found = 0, {}
    for name, rows in (("q", config.query_size), ("k", config.kv_size), ("v", config.kv_size)):
        found[f"self_attn.{name}_proj"] = qkv[begin : begin + rows], scales[begin // 16]
        begin += rows
    found["self_attn.o_proj"] = parts["o"][0], parts["o"][1][0]
    for i, name in enumerate(("gate", "up")):
        found[f"mlp.{name}_proj"] = pairs[:, i].reshape(config.ffn_size, -1), parts["gu"][1][i]
    found["mlp.down_proj"] = parts["down"][0], parts["down"][1][0]
    return found


def _exported_projection(name: str, ternary: NDArray[np.int8], scale: np.float32, kind: Kind) -> Tensors:
    if kind.packed:
        value = stored(np.array([1 / scale if kind.divides else scale]), kind.dtype)
        return {f"{name}.weight": ("U8", pack_quarters(ternary)), f"{name}.weight_scale": value}
    magnitude = scale / np.abs(ternary).mean()
    return {f"{name}.weight": stored(ternary * magnitude, kind.dtype)}


PACKED, MASTER = KINDS["packed"], KINDS["master-bf16"]
EXACT = replace(MASTER, dtype="F32")
"""Master weights in float32: the exported model has the pack's own scales to the last bit or nearly so."""
