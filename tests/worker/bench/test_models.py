"""Shapes, random weights at them, and what a command's SHAPE or PACK means."""

from types import SimpleNamespace

import numpy as np
import pytest

import trireme_kernels as kernels
from trireme_kernels.head_weights import codes_of
from trireme_proto.errors import ConfigurationError
from trireme_worker.bench import memory, models
from trireme_worker.bench.engine import Engine
from trireme_worker.bench.random_weights import RandomPack, random_head
from trireme_worker.pack import Pack, default_pack
from trireme_worker.pack.tensors import matrices, norms
from trireme_worker.synth.shapes import SHAPES, tiny


@pytest.mark.parametrize("layout", ["2bit", "1.6bit"])
def test_a_random_pack_has_the_parts_of_a_pack(layout):
    config = tiny()
    made, again, other = (RandomPack(config, layout, layers=1, seed=seed) for seed in (5, 5, 6))
    layer = made.layer(0)
    for name, shape_of in matrices(config).items():
        matrix = getattr(layer, name)
        assert (matrix.rows, matrix.cols, matrix.layout) == (*shape_of, layout)
        assert (matrix.data == getattr(again.layer(0), name).data).all()
        assert (matrix.data != getattr(other.layer(0), name).data).any()
    assert {name: getattr(layer, name).size for name in norms(config)} == norms(config)
    assert made.head_kind == made.head().kind == "int8+4bit"
    assert made.embedding().shape == (config.vocabulary, config.hidden_size)
    assert made.final_norm().shape == (config.hidden_size,)
    with pytest.raises(IndexError):
        made.layer(1)


@pytest.mark.parametrize("kind", ["int8", "int8+4bit"])
def test_a_random_head_is_what_quantising_would_make(kind):
    """Totals and codes belong to the levels, also where rows and columns are no whole tiles."""
    head = random_head(np.random.default_rng(1), 1100, 70, kind)
    assert (head.kind, head.vocabulary, head.hidden_size, head.width) == (kind, 1100, 70, 128)
    assert (head.totals == head.levels.sum(axis=1)).all()
    assert set(np.unique(head.levels)) == set(range(-127, 128))
    assert not head.levels[:, 70:].any()
    if head.codes is not None:
        assert (head.codes == codes_of(head.levels, head.dither)).all()


def test_a_pack_is_measured_with_the_head_that_is_asked_for():
    """Integers are made of bfloat16 and of each other, never the other way round."""
    folder, table = str(default_pack()), Pack.open(default_pack()).head()
    exact = kernels.quantise_head(table, "int8+4bit")
    quantised = SimpleNamespace(head=lambda: exact, head_kind="int8+4bit")
    for kind in ("int8", "int8+4bit"):
        weights, _ = models.find(folder, None, head=kind)
        assert weights.head_kind == weights.head().kind == kind
        assert (weights.head().levels == exact.levels).all()
        assert models._head_of(quantised, kind).kind == kind
    codeless = kernels.HeadWeights(exact.hidden_size, exact.levels, exact.scales, exact.totals)
    again = models._head_of(SimpleNamespace(head=lambda: codeless, head_kind="int8"), "int8+4bit")
    assert (again.codes == exact.codes).all()
    with pytest.raises(ConfigurationError, match="cannot be measured as bf16"):
        models._head_of(quantised, "bf16")


def test_large_models_are_timed_by_some_of_their_layers():
    assert models.timed_layers(SHAPES["2b4t"], "1.6bit") == 30
    assert models.timed_layers(SHAPES["8b"], "2bit") == 32
    layers = models.timed_layers(SHAPES["70b"], "1.6bit")
    each = SHAPES["70b"].ternary_parameters / 80 / 5
    assert layers * each <= models.WEIGHTS_BYTES < (layers + 1.1) * each
    assert models.timed_layers(SHAPES["70b"], "2bit", budget=1) == 1


def test_a_folder_is_a_pack_and_can_be_laid_out_anew():
    folder = str(default_pack())
    pack, layers = models.find(folder, None)
    assert isinstance(pack, Pack)
    assert layers == pack.config.layers
    relaid, again = models.find(folder, "1.6bit")
    assert (relaid.layout, again, relaid.config) == ("1.6bit", layers, pack.config)
    new, old = relaid.layer(1).down, pack.layer(1).down
    assert new.layout == "1.6bit"
    weights = [kernels.unpack(np.array(m.data), m.rows, m.cols, m.layout) for m in (new, old)]
    assert (weights[0] == weights[1]).all()
    assert (relaid.head() == pack.head()).all()
    assert isinstance(models.find(folder, pack.layout, head=pack.head_kind)[0], Pack)  # as it is mapped, without a copy


def test_a_shape_gets_random_weights_in_the_layout_asked_for(monkeypatch):
    monkeypatch.setattr(models, "SHAPES", {"tiny": tiny()})
    monkeypatch.setattr(models, "shape", lambda _name: tiny())
    weights, layers = models.find("tiny", "2bit")
    assert (weights.layout, layers) == ("2bit", 2)
    assert models.find("tiny", None)[0].layout == kernels.preferred_layout()


def test_what_does_not_fit_the_memory_is_one_sentence(monkeypatch, model):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=3 << 28))
    with pytest.raises(ConfigurationError, match=r"^2b4t takes 1\.5 GiB of memory, 0\.8 are free$"):
        models.find("2b4t", "1.6bit")
    with pytest.raises(ConfigurationError, match=r"^a cache of 20000000 positions takes 19\.1 GiB"):
        Engine(model, layers=2, threads=1, context=20_000_000)
