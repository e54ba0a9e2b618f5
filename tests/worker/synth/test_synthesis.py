"""`trireme synth`: packs of random weights, the same everywhere, whole or not at all."""

import hashlib
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import trireme_kernels as kernels
from trireme_coordinator.text import TextCodec
from trireme_proto.errors import ConfigurationError
from trireme_worker.commands import synth
from trireme_worker.pack import Pack
from trireme_worker.stage import StageModel
from trireme_worker.synth import synthesis
from trireme_worker.synth.shapes import SHAPES, tiny
from trireme_worker.synth.vocabulary import tokenizer_json

VOCABULARY = 4200
"""More than the bundled model's texts."""
DIGESTS = {
    ("2bit", "bf16"): "bb3dd473cb9a922321105c6105556bfb6ff3aefede6ab0bc0a05d296f38b6f90",
    ("1.6bit", "int8+4bit"): "6c76fb6c69312f6a3fb477ee08c42f33c31a191aca4a7c8e5d12920383530fb2",
}
"""SHA-256 over the files of the small pack with seed 7."""


def small(**changes):
    config = replace(tiny(), vocabulary=VOCABULARY, **changes)
    return replace(config, parameters=config.counted_parameters())


@pytest.fixture(autouse=True)
def small_shapes(monkeypatch):
    """All shapes are small."""
    monkeypatch.setattr(synthesis, "shape", lambda name: replace(small(), name=name))


def run(*arguments):
    app = typer.Typer()
    app.command()(synth)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(pack):
    return {str(p.relative_to(pack)): p.read_bytes() for p in sorted(pack.rglob("*")) if p.is_file()}


def test_the_command_says_what_it_made(tmp_path):
    result = run(tmp_path / "pack", "--shape", "8b", "--seed", "5")
    assert result.exit_code == 0
    assert (
        result.stdout
        == f"{tmp_path}/pack: synthetic-8b, 330.9 K parameters in 2 layers, 1.1 MB, 1.6bit, head int8+4bit, seed 5\n"
    )
    assert Pack.open(tmp_path / "pack").config == synthesis.synthetic_config(replace(small(), name="8b"), None)


@pytest.mark.parametrize(("layout", "head"), DIGESTS)
def test_the_same_seed_makes_the_same_bytes_on_any_machine(tmp_path, layout, head):
    synthesis.synthesise("8b", tmp_path / "pack", seed=7, layout=layout, head=head)
    digest = hashlib.sha256()
    for name, data in contents(tmp_path / "pack").items():
        digest.update(name.encode() + hashlib.sha256(data).digest())
    assert digest.hexdigest() == DIGESTS[layout, head]


def test_another_seed_makes_other_weights(tmp_path):
    for seed in (1, 2):
        synthesis.synthesise("8b", tmp_path / str(seed), seed=seed, head="bf16")
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert [name for name in one if one[name] == two[name]] == ["head.safetensors", "tokenizer.json"]


def test_fewer_layers_begin_as_more_do(tmp_path):
    for layers in (1, 3):
        synthesis.synthesise("8b", tmp_path / str(layers), layers=layers)
    one, three = contents(tmp_path / "1"), contents(tmp_path / "3")
    assert Pack.open(tmp_path / "1").config.name == "synthetic-8b-1-layers"
    assert len({three[f"layers/0000{i}.safetensors"] for i in range(3)}) == 3
    for name in ("embedding.safetensors", "layers/00000.safetensors"):
        assert one[name] == three[name]


def test_every_id_has_a_text_and_any_text_has_ids(tmp_path):
    synthesis.synthesise("8b", tmp_path / "pack")
    codec = TextCodec.open(Pack.open(tmp_path / "pack").tokenizer_path(), 0, VOCABULARY)
    assert (
        codec.decode(codec.encode("Any ~4150 text \u00e9\U0001f600", add_bos=True)) == "Any ~4150 text \u00e9\U0001f600"
    )
    assert max(codec.encode("Any ~4150 text", add_bos=True)) < 4096  # no prompt becomes an id that is only a number
    stream = codec.stream(codec.encode("Any", add_bos=True))
    assert [stream.push(i) for i in (4150, 4199)] == [" ~4150", " ~4199"]
    assert all(codec.decode([i]) for i in range(2, VOCABULARY))


def test_the_vocabulary_cannot_be_smaller_than_its_texts():
    with pytest.raises(ValueError, match="the vocabulary has 4096 texts, 4095 are too few"):
        tokenizer_json(4095)
    assert min(config.vocabulary for config in SHAPES.values()) > 4096


LLAMA = {"activation": "silu", "sub_norms": False, "tied_head": False}


@pytest.mark.parametrize(("changes", "head"), [({}, "bf16"), (LLAMA, "int8"), (LLAMA, "int8+4bit"), (LLAMA, "bf16")])
def test_activations_stay_finite_through_80_layers(tmp_path, monkeypatch, changes, head):
    monkeypatch.setattr(synthesis, "shape", lambda name: replace(small(**changes), name=name))
    synthesis.synthesise("70b", tmp_path / "pack", layers=80, head=head)
    model = StageModel(Pack.open(tmp_path / "pack"), range(80))
    try:
        logits = model.logits([0, 5, 4150, 77])
    finally:
        model.close()
    assert np.isfinite(logits).all()
    assert 0.01 < logits.std() < 100  # neither died out nor exploded
    assert np.ptp(logits, axis=0).max() > 0.01  # the tokens matter


def test_a_layer_takes_the_memory_of_the_one_before():
    parts = synthesis._Parts(small(), "2bit", "bf16", 0, lambda _done, _total: None)
    layers = parts.layers()
    first, second = next(layers), next(layers)
    assert np.shares_memory(first.down.data, second.down.data)


@pytest.mark.parametrize("head", ["bf16", "int8", "int8+4bit"])
@pytest.mark.parametrize("changes", [{}, LLAMA])
def test_progress_ends_when_all_is_written(tmp_path, monkeypatch, changes, head):
    monkeypatch.setattr(synthesis, "shape", lambda name: replace(small(**changes), name=name))
    seen = []
    synthesis.synthesise("8b", tmp_path / "pack", head=head, progress=lambda *each: seen.append(each))
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 500_000
    pack = Pack.open(tmp_path / "pack")
    assert (pack.layout, pack.head_kind) == ("1.6bit", head)


def test_all_kinds_of_heads_are_made_of_one_table(tmp_path):
    for head in ("bf16", "int8"):
        synthesis.synthesise("8b", tmp_path / head, head=head)
    table, exact = Pack.open(tmp_path / "bf16").head(), Pack.open(tmp_path / "int8").head()
    assert (kernels.quantise_head(table, "int8").levels == exact.levels).all()


def test_a_disk_without_room_is_one_sentence_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=60 << 20))
    with pytest.raises(ConfigurationError, match=r"^synthetic-8b takes 0\.0 GB of disk, 0\.1 GB are free there$"):
        synthesis.synthesise("8b", tmp_path / "not" / "there" / "pack")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"layers": 0}, "layers is 0; it must be 1 to 1024"),
        ({"layers": 1025}, "layers is 1025; it must be 1 to 1024"),
        ({"seed": -1}, "seed is -1; it must be 0 to 18446744073709551615"),
        ({"seed": 1 << 64}, "seed is 18446744073709551616"),
    ],
)
def test_numbers_out_of_range_are_one_sentence(tmp_path, wrong, sentence):
    with pytest.raises(ConfigurationError, match=f"^{sentence}"):
        synthesis.synthesise("8b", tmp_path / "pack", **wrong)


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        synthesis.synthesise("8b", tmp_path / "mine")


def test_a_path_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"^'pack' cannot be made: 'mine' is a file, not a folder$"):
        synthesis.synthesise("8b", tmp_path / "mine" / "pack")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path, monkeypatch, request, number):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start without it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def signalled(*_arguments):
        assert list(tmp_path.iterdir())  # something is there when it comes
        signal.raise_signal(number)

    monkeypatch.setattr(synthesis, "random_layer", signalled)
    result = run(tmp_path / "pack", "--shape", "70b")
    assert result.exit_code == (130 if number == signal.SIGINT else 128 + number)
    assert list(tmp_path.iterdir()) == []
