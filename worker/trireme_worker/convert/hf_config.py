"""config.json and generation_config.json of a checkpoint, read as the sizes and rules of a ternary model.

Owns what is supported: `model_type` bitnet (sub-norms, squared ReLU) and llama (none, SiLU), both quantised by
transformers' `bitnet` method. Everything else is refused by name, because a model computed wrongly is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from trireme_worker.pack.config import (
    MAX_CONTEXT,
    MAX_EOS,
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Activation,
    ModelConfig,
)
from trireme_worker.pack.jsontext import Fields, Malformed, shown
from trireme_worker.pack.manifest import GenerationDefaults

_NOT_QUANTISED = {"lm_head", "lm_head.weight", "model.embed_tokens", "embed_tokens"}
_DEFAULT_ROPE = (None, "default")


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How the checkpoint's projections become ternary."""

    packed: bool
    """uint8 weights with a `weight_scale`; otherwise float master weights, quantised by their mean magnitude."""
    scale_divides: bool
    """weight_scale is 1 / mean (class BitLinear) rather than the mean (AutoBitLinear)."""


def read_model(config: dict[str, Any], name: str, *, tied: bool) -> tuple[ModelConfig, Quantisation]:
    """Sizes and quantisation out of config.json. Malformed: what is not supported.

    `tied` says whether the head is the embedding, where config.json does not.
    """
    fields = Fields(config)
    family = fields.text("model_type", lambda text: text in ("bitnet", "llama"), "bitnet or llama (the supported ones)")
    quantisation = _quantisation(fields)
    _refuse_options(fields)
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    hidden = fields.integer("hidden_size", 1, MAX_WIDTH)
    vocabulary = fields.integer("vocab_size", 1, MAX_VOCABULARY)
    model = ModelConfig(
        name=name,
        layers=fields.integer("num_hidden_layers", 1, MAX_LAYERS),
        hidden_size=hidden,
        ffn_size=fields.integer("intermediate_size", 1, MAX_WIDTH),
        heads=heads,
        kv_heads=fields.integer("num_key_value_heads", 1, MAX_HEADS) if fields.has("num_key_value_heads") else heads,
        head_dim=_head_dim(fields, hidden, heads),
        vocabulary=vocabulary,
        context=fields.integer("max_position_embeddings", 1, MAX_CONTEXT),
        norm_eps=fields.number("rms_norm_eps", 1e-12, 1.0),
        rope_theta=_rope_theta(fields),
        activation=_activation(fields, family),
        sub_norms=family == "bitnet",
        tied_head=fields.boolean("tie_word_embeddings") if fields.has("tie_word_embeddings") else tied,
        bos_token_id=fields.integer("bos_token_id", 0, vocabulary - 1) if fields.has("bos_token_id") else None,
        eos_token_ids=_token_ids(fields, "eos_token_id", vocabulary),
        parameters=0,
    )
    model = replace(model, parameters=model.counted_parameters())
    model.check()
    return model, quantisation


def read_generation(config: dict[str, Any], model: ModelConfig) -> tuple[ModelConfig, GenerationDefaults]:
    """Sampling defaults, and the model with the end tokens that generation_config.json gives (chat models have more
    there).

    A field that is absent is off: 0 for top_k, 1 for top_p. Without `do_sample` the temperature is 0.
    """
    fields = Fields(config)
    if fields.has("eos_token_id"):
        model = replace(model, eos_token_ids=_token_ids(fields, "eos_token_id", model.vocabulary))
    samples = fields.has("do_sample") and fields.boolean("do_sample")
    temperature = fields.number("temperature", 0.0, 100.0) if fields.has("temperature") else 1.0
    return model, GenerationDefaults(
        temperature=temperature if samples else 0.0,
        top_k=fields.integer("top_k", 0, 1 << 31) if fields.has("top_k") else 0,
        top_p=fields.number("top_p", 1e-6, 1.0) if fields.has("top_p") else 1.0,
    )


def _quantisation(fields: Fields) -> Quantisation:
    if not fields.has("quantization_config"):
        raise Malformed("says nothing of quantization_config: this is not a ternary model")
    inner = fields.fields("quantization_config")
    inner.choice("quant_method", ("bitnet",))
    linear = inner.choice("linear_class", ("bitlinear", "autobitlinear")) if inner.has("linear_class") else "bitlinear"
    mode = inner.choice("quantization_mode", ("online", "offline")) if inner.has("quantization_mode") else "offline"
    if inner.has("use_rms_norm") and inner.boolean("use_rms_norm"):
        raise Malformed("quantization_config.use_rms_norm (a norm inside each linear layer) is not supported")
    if inner.has("modules_to_not_convert"):
        modules = inner.take("modules_to_not_convert")
        odd = [m for m in modules if m not in _NOT_QUANTISED] if isinstance(modules, list) else [modules]
        if odd:
            raise Malformed(
                f"quantization_config.modules_to_not_convert leaves out {shown(odd[0])}, only the head may be"
            )
    return Quantisation(packed=mode == "offline", scale_divides=linear == "bitlinear")


def _refuse_options(fields: Fields) -> None:
    """Refuses options of the two families that change the arithmetic and are not computed here."""
    for option in ("attention_bias", "mlp_bias"):
        if fields.has(option) and fields.boolean(option):
            raise Malformed(f"{option} is not supported")
    if fields.has("sliding_window"):
        raise Malformed("sliding_window is not supported")
    if fields.has("partial_rotary_factor") and fields.take("partial_rotary_factor") != 1.0:
        raise Malformed("partial_rotary_factor is not supported")
    if fields.has("rope_scaling"):
        _refuse_rope_scaling(fields.fields("rope_scaling"))


def _refuse_rope_scaling(fields: Fields) -> None:
    kinds = [fields.take(name) for name in ("rope_type", "type") if fields.has(name)]
    odd = next((kind for kind in kinds if kind not in _DEFAULT_ROPE), None)
    if odd is not None:
        raise Malformed(f"rope scaling of type {shown(odd)} is not supported")
    if fields.has("partial_rotary_factor") and fields.take("partial_rotary_factor") != 1.0:
        raise Malformed("partial_rotary_factor is not supported")


def _rope_theta(fields: Fields) -> float:
    """From `rope_parameters` (transformers 5) or from the top level (before)."""
    if not fields.has("rope_parameters"):
        return fields.number("rope_theta", 1.0, 1e12)
    inner = fields.fields("rope_parameters")
    _refuse_rope_scaling(inner)
    return inner.number("rope_theta", 1.0, 1e12) if inner.has("rope_theta") else fields.number("rope_theta", 1.0, 1e12)


def _head_dim(fields: Fields, hidden: int, heads: int) -> int:
    if fields.has("head_dim"):
        return fields.integer("head_dim", 2, MAX_HEAD_DIM)
    if hidden % heads:
        raise Malformed(
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
        )
    return hidden // heads


def _activation(fields: Fields, family: str) -> Activation:
    if not fields.has("hidden_act"):
        return "relu2" if family == "bitnet" else "silu"
    return cast(
        "Activation",
        fields.text("hidden_act", lambda text: text in ("relu2", "silu"), "relu2 or silu (the supported ones)"),
    )


def _token_ids(fields: Fields, name: str, vocabulary: int) -> tuple[int, ...]:
    """One id, a list of ids, or none."""
    if not fields.has(name):
        return ()
    value = fields.take(name)
    wrapped = Fields({name: value if isinstance(value, list) else [value]})
    return wrapped.integers(name, 0, vocabulary - 1, MAX_EOS)
