"""What an opened pack hands out, and what it needs for that."""

import hashlib

import numpy as np
import pytest
from tests.reference import Reference
from tests.reference_checkpoints import KINDS

import trireme_kernels as kernels
from trireme_proto.errors import PackCorrupt
from trireme_worker.pack import Pack


def scaled(matrix):
    """The real values of a packed matrix, float32 [rows, cols]."""
    ternary = kernels.unpack(np.array(matrix.data), matrix.rows, matrix.cols, matrix.layout).astype(np.float32)
    return ternary * np.repeat(matrix.scales, 16)[: matrix.rows, None]


def bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("layout", ["2bit", "1.6bit"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_weights_are_those_of_the_checkpoint(made, kind, layout):
    checkpoint, folder = made(kind, "bf16", layout)
    reference, pack = Reference(checkpoint, integer=True), Pack.open(folder)
    assert pack.layout == pack.layer(0).down.layout == layout

    def expected(*names):
        parts = [reference.projections[f"model.layers.1.{name}_proj"] for name in names]
        return np.concatenate([part.ternary * part.scale for part in parts])

    layer = pack.layer(1)
    assert np.array_equal(scaled(layer.qkv), expected("self_attn.q", "self_attn.k", "self_attn.v"))
    assert np.array_equal(scaled(layer.output), expected("self_attn.o"))
    assert np.array_equal(scaled(layer.down), expected("mlp.down"))
    pairs = scaled(layer.gate_up).reshape(-1, 2, 16, pack.config.hidden_size)
    gate_then_up = pairs.swapaxes(0, 1).reshape(-1, pack.config.hidden_size)
    assert np.array_equal(gate_then_up, expected("mlp.gate", "mlp.up"))
    for name, gain in {
        "input_layernorm": layer.attention_norm,
        "self_attn.attn_sub_norm": layer.attention_sub_norm,
        "post_attention_layernorm": layer.ffn_norm,
        "mlp.ffn_sub_norm": layer.ffn_sub_norm,
    }.items():
        stored = reference.tensors.get(f"model.layers.1.{name}.weight")
        assert (gain is None) == (stored is None)
        assert gain is None or np.array_equal(gain, stored)
    assert np.array_equal(pack.final_norm(), reference.tensors["model.norm.weight"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_tables(made, kind):
    checkpoint, folder = made(kind)
    reference, pack = Reference(checkpoint, integer=True), Pack.open(folder)
    for found, expected in ((pack.embedding(), reference.embedding), (pack.head(), reference.table)):
        error = np.abs(bfloat16(found) - expected) / np.abs(expected)
        assert error.max() <= (0 if KINDS[kind].dtype == "BF16" else 2**-8)
    assert np.array_equal(pack.embedding(), pack.head()) == pack.config.tied_head


@pytest.mark.parametrize("head", ["int8", "int8+4bit"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_integer_head_is_the_quantised_table(made, kind, head):
    """Also where the head is tied: the embedding stays in bfloat16, bit by bit."""
    plain, pack = Pack.open(made(kind)[1]), Pack.open(made(kind, head)[1])
    assert pack.head_kind == head
    expected, found = kernels.quantise_head(plain.head(), head), pack.head()
    for name in ("levels", "scales", "totals", "codes", "dither"):
        array, wanted = getattr(found, name), getattr(expected, name)
        assert (array is None) == (wanted is None)
        assert array is None or np.array_equal(array, wanted)
    assert (found.hidden_size, found.vocabulary, found.width) == (96, 200, 128)
    assert np.array_equal(pack.embedding(), plain.embedding())


def test_an_integer_head_is_mapped_and_aligned(made):
    head = Pack.open(made("packed", "int8+4bit")[1]).head()
    for array in (head.levels, head.codes, head.dither, head.scales):
        assert array.ctypes.data % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_config(made):
    config = Pack.open(made("llama-bitlinear")[1]).config
    assert (config.name, config.layers, config.hidden_size, config.ffn_size) == ("small", 2, 96, 208)
    assert (config.heads, config.kv_heads, config.head_dim, config.vocabulary, config.context) == (6, 2, 16, 200, 128)
    assert (config.norm_eps, config.rope_theta, config.activation) == (1e-5, 10000.0, "silu")
    assert (config.sub_norms, config.tied_head, config.bos_token_id, config.eos_token_ids) == (False, False, 1, (2,))
    projections = 96 * (96 + 32 + 32) + 96 * 96 + 3 * 208 * 96
    assert config.parameters == 2 * (projections + 2 * 96) + 96 + 2 * 200 * 96


def test_arrays_are_maps_that_cannot_be_written(made):
    layer = Pack.open(made("packed")[1]).layer(0)
    for array in (layer.qkv.data, layer.qkv.scales, layer.attention_norm, Pack.open(made("packed")[1]).embedding()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    for matrix in (layer.qkv, layer.output, layer.gate_up, layer.down):
        assert matrix.data.ctypes.data % 64 == 0


def test_sizes(made):
    folder = made("llama-bitlinear")[1]
    pack = Pack.open(folder)
    assert pack.sha256 == hashlib.sha256((folder / "trireme.json").read_bytes()).hexdigest()
    assert pack.layer_bytes(1) == (folder / "layers/00001.safetensors").stat().st_size
    assert pack.embedding_bytes() == (folder / "embedding.safetensors").stat().st_size
    assert pack.head_bytes() == (folder / "head.safetensors").stat().st_size
    tied = Pack.open(made("packed")[1])
    head = tied.path / "head.safetensors"
    assert tied.head_bytes() == tied.head_read_bytes() == head.stat().st_size + tied.embedding_bytes()
    for kind, unread in (("int8", 0), ("int8+4bit", 200 * 128)):
        pack = Pack.open(made("packed", kind)[1])
        assert pack.head_bytes() == (pack.path / "head.safetensors").stat().st_size
        assert pack.head_read_bytes() == pack.head_bytes() - unread


@pytest.mark.parametrize(
    ("kind", "head", "layers", "files"),
    [
        ("packed", "bf16", range(2), ["embedding", "head", "layers/00000", "layers/00001"]),
        ("packed", "bf16", range(1), ["embedding", "layers/00000"]),
        ("packed", "bf16", range(1, 2), ["embedding", "head", "layers/00001"]),
        ("packed", "int8", range(1, 2), ["head", "layers/00001"]),
        ("llama-bitlinear", "bf16", range(1, 2), ["head", "layers/00001"]),
    ],
)
def test_a_stage_needs_only_its_own_files(made, kind, head, layers, files):
    pack = Pack.open(made(kind, head)[1], layers=layers)
    assert sorted(pack.files_for(layers)) == [f"{file}.safetensors" for file in files]


@pytest.mark.parametrize("layers", [range(0), range(3), range(1, 3), range(-1, 1), range(0, 2, 2)])
def test_a_range_outside_the_model_is_refused(made, layers):
    with pytest.raises(ValueError, match="not a range"):
        Pack.open(made("packed")[1], layers=layers)


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_changed_byte_is_found_by_the_stage_that_needs_it(pack_folder):
    flip(pack_folder / "layers/00001.safetensors")
    with pytest.raises(PackCorrupt, match=r"^layers/00001\.safetensors: its SHA-256"):
        Pack.open(pack_folder)
    with pytest.raises(PackCorrupt, match=r"^layers/00001\.safetensors: its SHA-256"):
        Pack.open(pack_folder, layers=range(1, 2))
    Pack.open(pack_folder, verify=False)
    pack = Pack.open(pack_folder, layers=range(1))
    pack.layer(0)
    with pytest.raises(PackCorrupt, match="SHA-256"):  # not verified when opened, so verified when asked for
        pack.layer(1)


def test_a_changed_tokenizer_is_found(pack_folder):
    flip(pack_folder / "tokenizer.json")
    pack = Pack.open(pack_folder, layers=range(2))
    with pytest.raises(PackCorrupt, match=r"tokenizer\.json: its SHA-256"):
        pack.tokenizer_path()


def test_verification_reports_progress_and_hashes_once(made):
    pack, seen = Pack.open(made("packed")[1], verify=False), []
    names = pack.files_for(range(2))
    pack.verify_files(names, lambda *report: seen.append(report))
    total = sum((pack.path / name).stat().st_size for name in names)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)
    seen.clear()
    pack.verify_files(names, lambda *report: seen.append(report))
    assert seen == []
