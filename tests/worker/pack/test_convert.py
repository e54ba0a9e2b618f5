"""Conversions that work; agreement of what they compute is tested in tests/golden."""

import json

import numpy as np
import pytest
from tests.reference import read_tensors
from tests.reference_checkpoints import KINDS, hf_config, packed_projection, random_checkpoint, stored, write_checkpoint

import trireme_kernels as kernels
from trireme_proto.errors import CheckpointUnsupported, ConfigurationError
from trireme_worker.convert import convert, ternary
from trireme_worker.convert.checkpoint import Checkpoint
from trireme_worker.convert.conversion import HEAD, LAYOUT
from trireme_worker.convert.ternary import absmean, pack_matrix, unpack_quarters
from trireme_worker.pack import GenerationDefaults, Pack, default_pack

DEFAULTS = HEAD, LAYOUT


def tensors_of(checkpoint):
    """Tensors as `write_checkpoint` takes them, from a packed bfloat16 checkpoint."""
    found = read_tensors(checkpoint).items()
    return {name: ("U8", a) if a.dtype == np.uint8 else stored(a, "BF16") for name, a in found}


def manifest(folder):
    return json.loads((folder / "trireme.json").read_text())


def test_shards(made, tmp_path):
    checkpoint, folder = made("packed", *DEFAULTS)
    config = json.loads((checkpoint / "config.json").read_text())
    sharded = write_checkpoint(tmp_path / "sharded", config, tensors_of(checkpoint), shards=3)
    assert len(list(sharded.glob("model-*.safetensors"))) == 3
    convert(sharded, tmp_path / "pack", name="small")
    assert manifest(tmp_path / "pack") == manifest(folder)


def test_the_summary(made, tmp_path):
    seen = []
    summary = convert(made("packed")[0], tmp_path / "pack", progress=lambda *report: seen.append(report))
    config = Pack.open(tmp_path / "pack").config
    assert (summary.name, summary.layers, summary.parameters) == ("packed", 2, config.parameters)
    assert summary.ternary_parameters == 2 * 96 * (96 + 32 + 32 + 96 + 3 * 208)
    files = [path for path in (tmp_path / "pack").rglob("*") if path.is_file() and path.name != "trireme.json"]
    assert summary.bytes == sum(path.stat().st_size for path in files)
    assert 1.6 < summary.bits_per_weight < 2.3
    assert not summary.rounded_tables
    done = [report[0] for report in seen]
    assert done == sorted(done)
    assert len(set(done)) >= 3
    assert 0.99 < seen[-1][0] / seen[-1][1] <= 1


@pytest.mark.parametrize("kind", ["packed", "llama-bitlinear"])
@pytest.mark.parametrize("head", ["bf16", "int8", "int8+4bit"])
def test_progress_goes_on_while_the_head_is_quantised(made, tmp_path, monkeypatch, kind, head):
    """It rises with each chunk of each pass over the table, and ends at the whole."""
    monkeypatch.setattr("trireme_worker.convert.checkpoint._CHUNK_VALUES", 1000)  # 10 rows of 200
    seen = []
    convert(made(kind)[0], tmp_path / "pack", head=head, progress=lambda *report: seen.append(report))
    done, total = [report[0] for report in seen], seen[-1][1]
    assert done == sorted(done)
    assert {report[1] for report in seen} == {total}
    passes = {"bf16": 0, "int8": 1, "int8+4bit": 2}[head]
    assert len([step for step in done if step > total - passes * 200 * 96 * 2]) >= 20 * passes
    assert 0.99 < done[-1] / total <= 1


@pytest.mark.parametrize("option", ["head", "layout"])
def test_an_unknown_kind_is_one_sentence(made, tmp_path, option):
    with pytest.raises(ConfigurationError, match=f"^{option} is 'int4'; it must be one of"):
        convert(made("packed")[0], tmp_path / "pack", **{option: "int4"})


def test_values_that_bfloat16_cannot_hold_are_refused(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "wide", KINDS["master-f32"], seed=1)
    tensors = {name: stored(array, "F32") for name, array in read_tensors(checkpoint).items()}
    tensors["model.embed_tokens.weight"][1][0, 0] = np.float32(3.4e38)
    config = json.loads((checkpoint / "config.json").read_text())
    with pytest.raises(CheckpointUnsupported, match=r"embed_tokens\.weight holds values that are too large"):
        convert(write_checkpoint(tmp_path / "large", config, tensors), tmp_path / "pack")


def test_wide_tables_are_reported(made, tmp_path):
    assert convert(made("master-f32")[0], tmp_path / "pack").rounded_tables


def test_bits_per_weight_of_the_bundled_sizes():
    """The sizes that matter are close to 2 bits: the bundled model's layers have 2.08."""
    pack = Pack.open(default_pack())
    stored_bits = 8 * sum(pack.layer_bytes(i) for i in range(pack.config.layers))
    assert 2.0 < stored_bits / pack.config.ternary_parameters < 2.1


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        (None, GenerationDefaults(0.0, 0, 1.0)),
        ({"temperature": 0.7, "top_p": 0.9}, GenerationDefaults(0.0, 0, 0.9)),
        ({"do_sample": False, "temperature": 0.7}, GenerationDefaults(0.0, 0, 1.0)),
        ({"do_sample": True}, GenerationDefaults(1.0, 0, 1.0)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 50, "top_p": 0.9}, GenerationDefaults(0.6, 50, 0.9)),
        ({"do_sample": True, "temperature": None, "top_k": None}, GenerationDefaults(1.0, 0, 1.0)),
    ],
)
def test_generation_defaults(checkpoint, tmp_path, generation, expected):
    if generation is not None:
        (checkpoint / "generation_config.json").write_text(json.dumps(generation))
    convert(checkpoint, tmp_path / "pack")
    assert Pack.open(tmp_path / "pack").generation == expected


def test_chat_models_have_more_end_tokens(checkpoint, tmp_path):
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [2, 9]}')
    convert(checkpoint, tmp_path / "pack")
    assert Pack.open(tmp_path / "pack").config.eos_token_ids == (2, 9)


def test_the_files_of_the_tokenizer_come_along(checkpoint, tmp_path):
    for name in ("tokenizer_config.json", "chat_template.jinja", "README.md", "training_args.bin"):
        (checkpoint / name).write_text("{}")
    convert(checkpoint, tmp_path / "pack")
    names = {path.name for path in (tmp_path / "pack").iterdir()}
    assert names >= {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"}
    assert "training_args.bin" not in names
    Pack.open(tmp_path / "pack")


def settings(**changes):
    def change(config):
        for name, value in changes.items():
            if value is None:
                config.pop(name, None)
            else:
                config[name] = value

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": None, "rope_theta": 10000.0},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 10000.0},
        {"rope_scaling": {"rope_type": "default"}},
        {"architectures": None, "torch_dtype": "bfloat16", "use_cache": True, "attention_bias": False},
        {"hidden_act": None},
        {"tie_word_embeddings": None},
    ],
)
def test_the_same_said_in_other_words(made, checkpoint, edit, tmp_path, changes):
    edit(checkpoint / "config.json", settings(**changes))
    convert(checkpoint, tmp_path / "pack", name="small")
    assert manifest(tmp_path / "pack") == manifest(made("packed", *DEFAULTS)[1])


def test_head_dim_and_kv_heads_can_be_left_out(tmp_path):
    sizes = {
        "vocab_size": 20,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 8,
        "rms_norm_eps": 1e-6,
    }
    kind = KINDS["llama-bitlinear"]
    tensors, prefix = {}, "model.layers.0."
    for name, rows, cols in (("q", 64, 64), ("k", 64, 64), ("v", 64, 64), ("o", 64, 64)):
        tensors |= packed_projection(f"{prefix}self_attn.{name}_proj", np.eye(rows, cols) - 0.1, kind)
    for name, rows, cols in (("gate", 32, 64), ("up", 32, 64), ("down", 64, 32)):
        tensors |= packed_projection(f"{prefix}mlp.{name}_proj", np.eye(rows, cols), kind)
    for name, width in (
        (f"{prefix}input_layernorm", 64),
        (f"{prefix}post_attention_layernorm", 64),
        ("model.norm", 64),
    ):
        tensors[f"{name}.weight"] = stored(np.ones(width), "BF16")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = stored(np.ones((20, 64)), "BF16")
    tensors[f"{prefix}self_attn.rotary_emb.inv_freq"] = stored(np.ones(8), "F32")  # old checkpoints carry it
    convert(write_checkpoint(tmp_path / "llama", hf_config(kind, sizes), tensors), tmp_path / "pack")
    config = Pack.open(tmp_path / "pack").config
    assert (config.kv_heads, config.head_dim, config.bos_token_id, config.eos_token_ids) == (4, 16, None, ())


def test_a_head_saved_beside_the_embedding_it_is_tied_to(made, checkpoint, tmp_path):
    tensors = tensors_of(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    twice = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    convert(write_checkpoint(tmp_path / "twice", config, twice), tmp_path / "pack", name="small")
    assert manifest(tmp_path / "pack") == manifest(made("packed", *DEFAULTS)[1])


def test_a_name_for_people(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "pack", name="My model")
    assert Pack.open(tmp_path / "pack").config.name == "My model"
    for name in ("", " ", "a\nb", "x" * 129):
        with pytest.raises(ConfigurationError, match="model's name"):
            convert(checkpoint, tmp_path / "other", name=name)


def test_the_destination_is_looked_at_first(checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    (tmp_path / "pack").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        convert(checkpoint, tmp_path / "pack")


def test_scales_of_both_classes(made):
    """AutoBitLinear multiplies by what is stored, BitLinear divides by it: in float32, rounded once."""
    for kind, rule in (("packed", lambda s: s), ("llama-bitlinear", lambda s: np.float32(1) / s)):
        checkpoint, folder = made(kind)
        scale = read_tensors(checkpoint)["model.layers.0.mlp.down_proj.weight_scale"][0]
        found = Pack.open(folder).layer(0).down.scales
        assert set(found.tolist()) == {float(rule(scale))}


@pytest.mark.parametrize("layout", ["2bit", "1.6bit"])
def test_large_matrices_are_packed_in_chunks(monkeypatch, layout):
    weights = np.random.RandomState(0).randint(-1, 2, (150, 40)).astype(np.int8)
    scales = np.arange(1, 11, dtype=np.float32)
    whole = pack_matrix(weights, scales, layout)
    assert ternary._PACK_ROWS % 32 == 0  # whole tiles
    monkeypatch.setattr(ternary, "_PACK_ROWS", 64)
    parts = pack_matrix(weights, scales, layout)
    assert np.array_equal(parts.data, whole.data)
    assert np.array_equal(kernels.unpack(np.array(parts.data), 150, 40, layout), weights)
    assert parts.scales.tolist() == [*scales, *[0] * (len(parts.scales) - 10)]


def test_absmean_rounds_to_even_and_clips():
    weights = np.array([[1.0, -1.0, 0.5, -0.5, 1.5, 0.0, 2.0, -1.5]], np.float32)  # mean 1
    found, scale = absmean(lambda: [weights])
    assert found.tolist() == [[1, -1, 0, 0, 1, 0, 1, -1]]
    assert scale == 1.0


def test_absmean_does_not_depend_on_the_chunks(checkpoint):
    weights = np.random.RandomState(0).standard_normal((64, 33)).astype(np.float32)
    whole, scale = absmean(lambda: [weights])
    parts, other = absmean(lambda: [weights[:5], weights[5:60], weights[60:]])
    assert np.array_equal(whole, parts)
    assert scale == other


def test_absmean_of_nothing_but_zeros():
    found, scale = absmean(lambda: [np.zeros((16, 4), np.float32)])
    assert not found.any()
    assert np.isfinite(scale)


def test_unpacking_is_by_quarters_of_the_rows():
    packed = np.array([[0b10_01_00_10], [0b00_00_01_01]], np.uint8)  # bits 0-1 are the first quarter
    assert unpack_quarters(packed).reshape(4, 2).tolist() == [[1, 0], [-1, 0], [0, -1], [1, -1]]
    with pytest.raises(ValueError, match="code 3"):
        unpack_quarters(np.array([[0b00_11_00_00]], np.uint8))


def test_large_tensors_are_read_in_chunks(made, monkeypatch):
    monkeypatch.setattr("trireme_worker.convert.checkpoint._CHUNK_VALUES", 1000)
    checkpoint = Checkpoint(made("master-bf16")[0])
    chunks = list(checkpoint.float_chunks("model.embed_tokens.weight"))
    assert {len(chunk) for chunk in chunks} == {10}
    assert np.array_equal(np.concatenate(chunks), read_tensors(made("master-bf16")[0])["model.embed_tokens.weight"])
