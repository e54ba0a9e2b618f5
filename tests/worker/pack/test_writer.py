"""A pack appears whole or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from trireme_proto.errors import ConfigurationError
from trireme_worker.pack import Pack, PackContents, quantised_head, write_pack


@pytest.fixture
def contents(made):
    """The parts of a pack, as the writer takes them."""
    pack = Pack.open(made("llama-bitlinear")[1])
    return PackContents(
        config=pack.config,
        embedding=[pack.embedding()[:50], pack.embedding()[50:]],
        layers=[pack.layer(0), pack.layer(1)],
        final_norm=pack.final_norm(),
        head=[pack.head()],
        generation=pack.generation,
        extra_files={"tokenizer.json": b"{}"},
    )


def test_the_same_parts_make_the_same_pack(made, contents, tmp_path):
    write_pack(tmp_path / "copy", contents)
    original = made("llama-bitlinear")[1]
    for file in (path for path in original.rglob("*") if path.is_file()):
        assert (tmp_path / "copy" / file.relative_to(original)).read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("head", ["int8", "int8+4bit"])
@pytest.mark.parametrize("kind", ["packed", "llama-bitlinear"])
def test_a_quantised_head_does_not_depend_on_the_chunks(made, tmp_path, kind, head, monkeypatch):
    """Rows come in chunks of any size and are quantised in whole tiles, some at a time."""
    monkeypatch.setattr(quantised_head, "ROWS_AT_A_TIME", 64)
    original, pack = made(kind, head, "1.6bit")[1], Pack.open(made(kind)[1])
    largest = []

    def rows():
        for at in range(0, 200, 37):
            yield pack.head()[at : at + 37]

    def watched(table):
        largest.append(len(table))
        return real(table)

    real = quantised_head.quantise_table_rows
    monkeypatch.setattr(quantised_head, "quantise_table_rows", watched)
    contents = PackContents(
        config=pack.config,
        embedding=[pack.embedding()],
        layers=[pack.layer(i).relaid("1.6bit") for i in range(2)],
        final_norm=pack.final_norm(),
        quantised_head=quantised_head.QuantisedHead(pack.config, head, rows),
        layout="1.6bit",
        extra_files={"tokenizer.json": (original / "tokenizer.json").read_bytes()},
    )
    write_pack(tmp_path / "copy", contents)
    assert largest == [64, 64, 64, 8] * quantised_head.passes(head)
    for name in ("head.safetensors", "layers/00000.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (original / name).read_bytes()


def test_an_empty_folder_may_be_there(contents, tmp_path):
    (tmp_path / "pack").mkdir()
    write_pack(tmp_path / "pack", contents)
    Pack.open(tmp_path / "pack")


def test_folders_above_are_made(contents, tmp_path):
    write_pack(tmp_path / "a" / "b" / "pack", contents)
    Pack.open(tmp_path / "a" / "b" / "pack")


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_there_is_not_overwritten(contents, tmp_path, what):
    target = tmp_path / "pack"
    if what == "file":
        target.write_text("mine")
    elif what == "folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="'pack' exists already"):
        write_pack(target, contents)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_the_current_folder_is_not_replaced(contents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"'\.' exists already"):
        write_pack(Path(), contents)
    assert list(tmp_path.iterdir()) == []


class Interrupted(BaseException):
    """As KeyboardInterrupt is, no Exception."""


@pytest.mark.parametrize("fault", [Interrupted, RuntimeError])
def test_a_break_leaves_nothing_behind(contents, tmp_path, fault):
    def layers():
        yield contents.layers[0]
        raise fault

    with pytest.raises(fault):
        write_pack(tmp_path / "pack", replace(contents, layers=layers()))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(contents, tmp_path):
    def layers():
        raise OSError(28, "No space left on device")
        yield

    with pytest.raises(ConfigurationError, match="cannot write the pack 'pack': No space left on device"):
        write_pack(tmp_path / "pack", replace(contents, layers=layers()))
    assert list(tmp_path.iterdir()) == []


def test_parts_must_fit_the_configuration(contents, tmp_path):
    for wrong, match in (
        (replace(contents, layers=contents.layers[:1]), "1 layers were given, the configuration says 2"),
        (replace(contents, head=None), "head.safetensors holds"),
        (replace(contents, layout="1.6bit"), "qkv has .* bytes, its shape says"),
        (replace(contents, embedding=contents.embedding[:1]), "embedding has 9600 bytes"),
        (replace(contents, extra_files={}), "does not list tokenizer.json"),
    ):
        with pytest.raises(ValueError, match=match):
            write_pack(tmp_path / "pack", wrong)
        assert list(tmp_path.iterdir()) == []


def test_layers_are_taken_one_at_a_time(contents, tmp_path):
    """While layer i is asked for, layer i-1 is on the disk already: memory is that of one layer."""

    def layers():
        for i, layer in enumerate(contents.layers):
            assert len(list(tmp_path.rglob("layers/*.safetensors"))) == i
            yield layer

    write_pack(tmp_path / "pack", replace(contents, layers=layers()))
