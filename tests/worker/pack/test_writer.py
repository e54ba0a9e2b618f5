"""A pack appears whole or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from trireme_proto.errors import ConfigurationError
from trireme_worker.pack import Pack, PackContents, write_pack


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
