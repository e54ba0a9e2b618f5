"""Hugging Face's names for the tensors of the two families, with the dtypes and shapes that are accepted."""

from __future__ import annotations

from dataclasses import dataclass

from trireme_proto.errors import CheckpointUnsupported
from trireme_worker.convert.checkpoint import FLOATS
from trireme_worker.pack.config import ModelConfig

EMBEDDING, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
IGNORED = ".rotary_emb.inv_freq"
"""End of the names of buffers that old checkpoints carry; the rotary tables are computed."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a tensor may be."""

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def expected_tensors(config: ModelConfig, *, packed: bool) -> dict[str, Accepted]:
    """Every tensor of a checkpoint, by name. `packed`: projections are uint8, four rows to a byte, with a scale."""
    table = Accepted(FLOATS, ((config.vocabulary, config.hidden_size),))
    expected = {EMBEDDING: table} | ({} if config.tied_head else {HEAD: table})
    expected[FINAL_NORM] = Accepted(FLOATS, ((config.hidden_size,),))
    for index in range(config.layers):
        prefix = f"model.layers.{index}."
        expected |= {f"{prefix}{name}.weight": Accepted(FLOATS, ((width,),)) for name, width in _norms(config).items()}
        for name, (rows, cols) in _projections(config).items():
            expected |= _projection(f"{prefix}{name}.weight", rows, cols, packed=packed)
    return expected


def _projection(name: str, rows: int, cols: int, *, packed: bool) -> dict[str, Accepted]:
    if not packed:
        return {name: Accepted(FLOATS, ((rows, cols),))}
    if rows % 4:
        raise CheckpointUnsupported(f"{name} has {rows} rows, which four to a byte does not divide")
    weight, scale = Accepted(("U8",), ((rows // 4, cols),)), Accepted(FLOATS, ((1,), (), (1, 1)))
    return {name: weight, f"{name}_scale": scale}


def _norms(config: ModelConfig) -> dict[str, int]:
    widths = {"input_layernorm": config.hidden_size, "post_attention_layernorm": config.hidden_size}
    if config.sub_norms:
        widths |= {"self_attn.attn_sub_norm": config.query_size, "mlp.ffn_sub_norm": config.ffn_size}
    return widths


def _projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(rows, cols) by name."""
    hidden, ffn = config.hidden_size, config.ffn_size
    return {
        "self_attn.q_proj": (config.query_size, hidden),
        "self_attn.k_proj": (config.kv_size, hidden),
        "self_attn.v_proj": (config.kv_size, hidden),
        "self_attn.o_proj": (hidden, config.query_size),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }
