"""Shapes, and random weights at them."""

import numpy as np
import pytest

import trireme_kernels as kernels
from trireme_proto.errors import ConfigurationError
from trireme_worker.synth.shapes import SHAPES, shape, tiny
from trireme_worker.synth.weights import draw_codes, random_bytes, random_rows, random_table, row_pieces, source

SIZES = {"700m": 0.7, "1.3b": 1.3, "3b": 3.3, "2b4t": 2.4, "7b": 6.7, "8b": 8.0, "13b": 13.0, "30b": 32.5, "70b": 70.6}


def test_shapes_are_consistent_and_as_large_as_their_names():
    assert set(SHAPES) == set(SIZES)
    for name, config in SHAPES.items():
        config.check()
        assert config.parameters / 1e9 == pytest.approx(SIZES[name], rel=0.05)
    assert SHAPES["2b4t"].parameters == 2_412_820_480  # of the published checkpoint
    tiny().check()


@pytest.mark.parametrize(("name", "hint"), [("8B", "8b"), ("2bt4", "2b4t"), ("nowhere/at/all", None)])
def test_an_unknown_shape_is_one_sentence_with_the_closest(name, hint):
    with pytest.raises(ConfigurationError, match="neither a shape") as caught:
        shape(name)
    assert (f"did you mean {hint}?" in str(caught.value)) == (hint is not None)


@pytest.mark.parametrize("layout", ["2bit", "1.6bit"])
def test_random_codes_are_every_possible_byte_and_no_other(layout):
    rows, cols = 32, kernels.block_cols(layout) * 64
    data = np.empty(kernels.packed_bytes(rows, cols, layout), np.uint8)
    draw_codes(source(1, 0), data, layout)
    weights = kernels.unpack(data, rows, cols, layout)  # refuses an impossible byte
    assert len(np.unique(data)) == (81 if layout == "2bit" else 243)
    assert np.bincount(weights.ravel() + 1, minlength=3) / weights.size == pytest.approx([1 / 3] * 3, abs=0.02)


def test_random_tables_hold_small_finite_numbers():
    table = random_table(source(1, 0), 50, 70)
    values = (table.astype(np.uint32) << 16).view(np.float32)
    assert table.shape == (50, 70)
    assert ((abs(values) >= 2.0**-7) & (abs(values) < 2.0**-5)).all()
    assert (values < 0).any()
    assert (values > 0).any()


def test_tables_drawn_in_pieces_are_those_drawn_at_once(monkeypatch):
    whole = random_rows(source(1, 0), 50, 7)
    monkeypatch.setattr("trireme_worker.synth.weights._PIECE", 150)
    assert row_pieces(50, 7)[:2] == [(0, 8), (8, 16)]
    assert (random_table(source(1, 0), 50, 7) == whole).all()


def test_random_bytes_are_these_on_any_machine():
    assert random_bytes(source(1, 2), 11).hex() == "c2bbaca4b755cb72ab983b"
    assert random_bytes(source(1, 3), 11) != random_bytes(source(1, 2), 11)
