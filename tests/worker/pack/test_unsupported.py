"""Checkpoints that cannot be converted: the message names the setting, tensor or file, and nothing is written."""

import json

import numpy as np
import pytest
from tests.reference import read_tensors
from tests.reference_checkpoints import stored, write_checkpoint

from trireme_proto.errors import CheckpointUnsupported
from trireme_worker.convert import convert


def refused(checkpoint, match):
    target = checkpoint.parent / "pack"
    with pytest.raises(CheckpointUnsupported, match=match) as caught:
        convert(checkpoint, target)
    assert str(checkpoint.parent) not in caught.value.message
    assert not target.exists()
    assert not list(checkpoint.parent.glob(".pack*"))


def put(*path, value):
    def change(config):
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def drop(name):
    return lambda config: config.pop(name)


QUANTISATION = "quantization_config"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("model_type", value="qwen3"), "model_type must be bitnet or llama .* not 'qwen3'"),
        (drop("model_type"), "does not say model_type"),
        (drop(QUANTISATION), "not a ternary model"),
        (put(QUANTISATION, "quant_method", value="gptq"), "quant_method must be bitnet, not 'gptq'"),
        (put(QUANTISATION, "linear_class", value="other"), "linear_class must be bitlinear or autobitlinear"),
        (put(QUANTISATION, "quantization_mode", value="other"), "quantization_mode must be online or offline"),
        (put(QUANTISATION, "use_rms_norm", value=True), "use_rms_norm"),
        (put(QUANTISATION, "modules_to_not_convert", value=["model.layers.0"]), "leaves out 'model.layers.0'"),
        (put("hidden_act", value="gelu"), "hidden_act must be relu2 or silu"),
        (put("attention_bias", value=True), "attention_bias is not supported"),
        (put("mlp_bias", value=True), "mlp_bias is not supported"),
        (put("sliding_window", value=4096), "sliding_window is not supported"),
        (put("partial_rotary_factor", value=0.5), "partial_rotary_factor"),
        (put("rope_scaling", value={"rope_type": "yarn", "factor": 2.0}), "rope scaling of type 'yarn'"),
        (put("rope_scaling", value={"type": "linear", "factor": 2.0}), "rope scaling of type 'linear'"),
        (put("rope_parameters", value={"rope_type": "llama3", "rope_theta": 1e4}), "rope scaling of type 'llama3'"),
        (drop("rope_parameters"), "does not say rope_theta"),
        (drop("hidden_size"), "does not say hidden_size"),
        (drop("rms_norm_eps"), "does not say rms_norm_eps"),
        (put("num_key_value_heads", value=4), "not a multiple of config.kv_heads"),
        (put("head_dim", value=12), "the width of queries, 72, is not a multiple of 16"),
        (put("eos_token_id", value=200), "eos_token_id"),
        (put("bos_token_id", value="<s>"), "bos_token_id must be an integer"),
        (put("vocab_size", value=201), "model.embed_tokens.weight is of shape .200, 96., its config says .201, 96."),
        (put("num_hidden_layers", value=3), "the tensor model.layers.2.input_layernorm.weight is missing"),
        (put("num_hidden_layers", value=1), "the tensor 'model.layers.1.* is none that"),
        (put("tie_word_embeddings", value=False), "the tensor lm_head.weight is missing"),
        (put("model_type", value="llama"), "sub_norm.* is none that this architecture has"),
        (put(QUANTISATION, "quantization_mode", value="online"), "is of dtype U8, not .*quantization_mode online"),
    ],
)
def test_settings(checkpoint, edit, change, match):
    edit(checkpoint / "config.json", change)
    refused(checkpoint, match)


def rewritten(checkpoint, how):
    """The checkpoint with its tensors changed in place by `how`."""
    tensors = {n: ("U8", a) if a.dtype == np.uint8 else stored(a, "BF16") for n, a in read_tensors(checkpoint).items()}
    how(tensors)
    write_checkpoint(checkpoint, json.loads((checkpoint / "config.json").read_text()), tensors)


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop(DOWN), f"the tensor {DOWN} is missing"),
        (drop(f"{DOWN}_scale"), f"the tensor {DOWN}_scale is missing"),
        (
            put(DOWN, value=("U8", np.zeros((96, 208), np.uint8))),
            f"{DOWN} is of shape .96, 208., its config says .24, 208",
        ),
        (put(DOWN, value=stored(np.zeros((24, 208)), "BF16")), f"{DOWN} is of dtype BF16, not U8"),
        (put(DOWN, value=("U8", np.full((24, 208), 0xC0, np.uint8))), f"{DOWN} holds the code 3"),
        (put(f"{DOWN}_scale", value=stored(np.array([0.0]), "BF16")), "is not a positive number"),
        (put(f"{DOWN}_scale", value=stored(np.array([-1.0]), "F32")), "is not a positive number"),
        (put(f"{DOWN}_scale", value=stored(np.array([np.nan]), "F32")), "not finite"),
        (put(f"{DOWN}_scale", value=stored(np.ones(96), "BF16")), "is of shape .96., its config says .1."),
        (put("model.norm.weight", value=stored(np.full(96, np.inf), "BF16")), "model.norm.weight holds values"),
        (
            put("model.embed_tokens.weight", value=stored(np.full((200, 96), np.nan), "F16")),
            "embed_tokens.weight holds",
        ),
        (put("model.layers.0.self_attn.q_proj.bias", value=stored(np.zeros(96), "BF16")), "q_proj.bias' is none that"),
        (put("lm_head.weight", value=stored(np.zeros((200, 96)), "BF16")), "'lm_head.weight' is none that"),
    ],
)
def test_tensors(checkpoint, change, match):
    rewritten(checkpoint, change)
    refused(checkpoint, match)


def test_what_is_no_checkpoint(tmp_path, checkpoint):
    refused(tmp_path / "nothing", "no Hugging Face checkpoint at 'nothing'")
    weights = checkpoint / "model.safetensors"
    weights.rename(checkpoint / "pytorch_model.bin")
    refused(checkpoint, "pickled")
    (checkpoint / "pytorch_model.bin").unlink()
    refused(checkpoint, "neither model.safetensors nor")


def test_files_that_are_damaged(checkpoint):
    (checkpoint / "generation_config.json").write_text('{"do_sample": true, "temperature": -1}')
    refused(checkpoint, "^generation_config.json: temperature")
    (checkpoint / "generation_config.json").unlink()
    (checkpoint / "tokenizer.json").unlink()
    refused(checkpoint, "tokenizer.json is missing")
    (checkpoint / "model.safetensors").write_bytes(b"short")
    refused(checkpoint, "^model.safetensors: announces a header")
    (checkpoint / "config.json").write_text("{")
    refused(checkpoint, "^config.json: is not valid JSON|^model.safetensors")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ".safetensors", 7, "x.bin"])
def test_an_index_names_plain_files_only(checkpoint, name):
    index = {"weight_map": {"model.norm.weight": name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(checkpoint, "plain file name")


def test_a_shard_that_is_missing_or_repeats_a_tensor(checkpoint):
    index = {"weight_map": {"model.norm.weight": "other.safetensors", "x": "model.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(checkpoint, "^other.safetensors: is missing")
    (checkpoint / "other.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    refused(checkpoint, "is in model.safetensors as well")
