"""Packs that are missing, incomplete, contradictory or hostile: one typed error that names the file within the pack."""

import hashlib
import os
import shutil
from dataclasses import replace

import pytest

from trireme_proto.errors import PackCorrupt, PackNotFound
from trireme_worker.pack import Pack, default_pack
from trireme_worker.pack.jsontext import Malformed
from trireme_worker.pack.tensors import file_tensors


def refused(folder, match, **how):
    """The message of the PackCorrupt that opening raises; it must not tell where the pack is."""
    with pytest.raises(PackCorrupt, match=match) as caught:
        Pack.open(folder, **how).layer(0)
    assert str(folder.parent) not in caught.value.message


def test_no_pack(tmp_path, checkpoint):
    with pytest.raises(PackNotFound, match=r"no trireme\.json"):
        Pack.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(PackNotFound):
        Pack.open(tmp_path / "file")
    with pytest.raises(PackNotFound, match="trireme convert"):
        Pack.open(checkpoint)
    with pytest.raises(PackNotFound):
        Pack.open("a\0b")
    with pytest.raises(PackNotFound, match=r"no pack at '\.'"):
        Pack.open(".")


@pytest.mark.parametrize("name", ["layers/00000.safetensors", "embedding.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file(pack_folder, name, verify):
    (pack_folder / name).unlink()
    refused(pack_folder, f"^{name}: is missing", verify=verify)


@pytest.mark.parametrize("size", [0, 4, 100, 10**6])
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_of_another_size(pack_folder, size, verify):
    os.truncate(pack_folder / "head.safetensors", size)
    refused(pack_folder, f"^head.safetensors: is {size} bytes long", verify=verify)


def test_a_link_out_of_the_pack(pack_folder, tmp_path):
    inside = pack_folder / "tokenizer.json"
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    refused(pack_folder, "^tokenizer.json: is a link that leads out of the pack")
    (pack_folder / "layers").rename(tmp_path / "layers")
    (pack_folder / "layers").symlink_to(tmp_path / "layers")
    refused(pack_folder, "^layers/00000.safetensors: is a link", layers=range(1))


def test_a_link_inside_the_pack_is_allowed(pack_folder):
    (pack_folder / "tokenizer.json").rename(pack_folder / "blob")
    (pack_folder / "tokenizer.json").symlink_to("blob")
    Pack.open(pack_folder).tokenizer_path()


def test_a_link_to_itself(pack_folder):
    (pack_folder / "tokenizer.json").unlink()
    (pack_folder / "tokenizer.json").symlink_to("tokenizer.json")
    refused(pack_folder, "^tokenizer.json: ")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file(pack_folder, make):
    (pack_folder / "README.md").unlink(missing_ok=True)
    (pack_folder / "head.safetensors").unlink()
    make(pack_folder / "head.safetensors")
    refused(pack_folder, "^head.safetensors: is not a file")


def rename(old, new):
    def change(manifest):
        manifest["files"][new] = manifest["files"].pop(old)

    return change


def put(*path, value):
    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


def drop(*path):
    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return change


LAYER = ("files", "layers/00000.safetensors")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("format", value="other"), "format must be trireme-pack"),
        (put("version", value=2), "version 2, this program reads version 1"),
        (put("surprise", value=1), "unknown field surprise"),
        (put("config", "surprise", value=1), "unknown field config.surprise"),
        (drop("config", "layers"), "does not say config.layers"),
        (drop("config", "bos_token_id"), "does not say config.bos_token_id"),
        (put("config", "layers", value=True), "config.layers must be an integer"),
        (put("config", "layers", value=2.0), "config.layers must be an integer"),
        (put("config", "layers", value=0), "config.layers must be an integer from 1"),
        (put("config", "layers", value=3), "parameters"),
        (put("config", "heads", value=5), "not a multiple of config.kv_heads"),
        (put("config", "head_dim", value=17), "odd"),
        (put("config", "ffn_size", value=200), "not a multiple of 16"),
        (put("config", "parameters", value=1), "its sizes make"),
        (put("config", "norm_eps", value="1e-5"), "config.norm_eps must be a number"),
        (put("config", "norm_eps", value=1e999), "JSON"),
        (put("config", "rope_theta", value=0), "config.rope_theta must be a number from 1"),
        (put("config", "activation", value="gelu"), "relu2 or silu"),
        (put("config", "tied_head", value=0), "true or false"),
        (put("config", "eos_token_ids", value=[200]), "config.eos_token_ids must be integers from 0 to 199"),
        (put("config", "bos_token_id", value=-1), "config.bos_token_id"),
        (put("config", "name", value="\x1b[2J"), "printable"),
        (put("config", value=[]), "config is not a JSON object"),
        (put("quantisation", "layout", value="3bit"), "layout must be 2bit or 1.6bit"),
        (put("quantisation", "layout", value="1.6bit"), "lists other tensors for layers/00000"),
        (put("quantisation", "head", value="int4"), r"head must be bf16 or int8 or int8\+4bit"),
        (put("quantisation", "head", value="int8"), "lists other tensors for head"),
        (drop("quantisation", "head"), "does not say quantisation.head"),
        (put("generation", "top_p", value=0), "generation.top_p"),
        (put("generation", "temperature", value=-1), "generation.temperature"),
        (put(*LAYER, "sha256", value="0" * 63), "64 hexadecimal digits"),
        (put(*LAYER, "sha256", value="0" * 64), "SHA-256"),
        (put(*LAYER, "bytes", value=-1), "bytes must be an integer"),
        (put(*LAYER, "tensors", "qkv", "shape", value=[1]), "lists other tensors for layers/00000"),
        (put(*LAYER, "tensors", "qkv", "dtype", value="I64"), "dtype must be"),
        (drop(*LAYER, "tensors", "down"), "lists other tensors"),
        (drop(*LAYER), "does not list layers/00000"),
        (drop("files", "tokenizer.json"), "does not list tokenizer.json"),
        (rename("tokenizer.json", "../tokenizer.json"), "does not list tokenizer.json"),
        (put("files", "../../etc/passwd", value={"sha256": "0" * 64, "bytes": 1}), "unknown file"),
        (put("files", "/etc/passwd", value={"sha256": "0" * 64, "bytes": 1}), "unknown file"),
        (put("files", "layers/../x.safetensors", value={"sha256": "0" * 64, "bytes": 1, "tensors": {}}), "unknown"),
        (put("files", "a\0b", value={"sha256": "0" * 64, "bytes": 1}), "unknown file"),
    ],
)
def test_a_manifest_that_is_wrong(pack_folder, edit, change, match):
    edit(pack_folder / "trireme.json", change)
    refused(pack_folder, match)


HEAD = ("files", "head.safetensors", "tensors")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("quantisation", "head", value="bf16"), "lists other tensors for head"),
        (put("quantisation", "head", value="int8"), "lists other tensors for head"),
        (drop(*HEAD, "head.levels"), "lists other tensors for head"),
        (drop(*HEAD, "head.dither"), "lists other tensors for head"),
        (put(*HEAD, "head.levels", "shape", value=[200, 96]), "lists other tensors for head"),
        (put(*HEAD, "head.levels", "dtype", value="U8"), "lists other tensors for head"),
        (put(*HEAD, "head.codes", "shape", value=[7 * 16 * 128]), "lists other tensors for head"),
        (put(*HEAD, "head.codes", "shape", value=[7, 16, 32, 4, 1]), "at most 4 integers"),
    ],
)
def test_a_manifest_whose_head_is_wrong(made, tmp_path, edit, change, match):
    folder = shutil.copytree(made("packed", "int8+4bit")[1], tmp_path / "pack")
    Pack.open(folder).head()
    edit(folder / "trireme.json", change)
    refused(folder, match)


def test_a_head_that_is_too_wide_for_integers():
    """Sums would overflow."""
    wide = replace(Pack.open(default_pack()).config, hidden_size=(1 << 16) + 1)
    file_tensors(wide, "2bit", "bf16")
    with pytest.raises(Malformed, match="hidden_size is above 65536"):
        file_tensors(wide, "2bit", "int8")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"format": "trireme-pack", "format": "trireme-pack"}', "a key twice"),
        (b'{"version": NaN}', "NaN"),
        (b'{"version": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b" " * (16 << 20) + b"{}", "larger than"),
    ],
)
def test_a_manifest_that_is_no_manifest(pack_folder, text, match):
    (pack_folder / "trireme.json").write_bytes(text)
    refused(pack_folder, f"^trireme.json: .*{match}")


def test_a_message_shows_no_control_characters(pack_folder, edit):
    edit(pack_folder / "trireme.json", put("files", "\x1b[31m" * 50, value={}))
    with pytest.raises(PackCorrupt) as caught:
        Pack.open(pack_folder)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


def test_tensors_must_be_aligned(pack_folder, edit):
    """A file whose header and hash are right, but whose float32 values begin at an odd byte."""
    file = pack_folder / "layers/00000.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length].rstrip(), data[8 + length :]
    header += b" " * (1 - len(header) % 2)
    file.write_bytes(len(header).to_bytes(8, "little") + header + body)
    entry = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    edit(pack_folder / "trireme.json", lambda manifest: manifest["files"]["layers/00000.safetensors"].update(entry))
    refused(pack_folder, "^layers/00000.safetensors: .* is not aligned")
