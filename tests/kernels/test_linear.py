"""The packed layout and the ternary product: exact for every shape, split, batch and kind of memory."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trireme_kernels as k
from trireme_kernels import cases, linear

odd = st.integers(1, 100)
seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(cases.LAYOUTS)


def ternary(seed: int, rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (rows, cols)).astype(np.int8)


def test_layout_of_a_known_byte() -> None:
    """Written out by hand from the drawing, not computed by a second packer."""
    w = np.zeros((64, 32), np.int8)
    w[32 + 16 + 3, 16 + 4 * 2 + 1] = 1  # tile 1, vector 1, r = 3; block 1, field 2, j = 1
    w[32 + 16 + 3, 16 + 4 * 3 + 1] = -1  # the same byte, field 3
    data = k.pack(w)
    assert data.size == 512
    byte = ((1 * 2 + 1) * 2 + 1) * 64 + 4 * 3 + 1
    assert data[byte] == 0b00_10_01_01
    assert (np.delete(data, byte) == 0b01_01_01_01).all()


def test_layout_of_a_known_byte_of_1_6_bits() -> None:
    """Written out by hand, as above."""
    w = np.zeros((64, 40), np.int8)
    w[32 + 16 + 3, 20 + 4 * 2 + 1] = 1  # tile 1, vector 1, r = 3; block 1, digit 2, j = 1
    w[32 + 16 + 3, 20 + 4 * 4 + 1] = -1  # the same byte, digit 4
    data = k.pack(w, "1.6bit")
    assert data.size == 512
    byte = ((1 * 2 + 1) * 2 + 1) * 64 + 4 * 3 + 1
    assert data[byte] == 1 + 3 + 2 * 9 + 27 + 0 * 81
    assert (np.delete(data, byte) == 121).all()


@settings(deadline=None)
@given(seeds, odd, odd, layouts)
def test_pack_round_trip(seed: int, rows: int, cols: int, layout: str) -> None:
    w = ternary(seed, rows, cols)
    data = k.pack(w, layout)
    assert data.size == k.packed_bytes(rows, cols, layout)
    assert (k.unpack(data, rows, cols, layout) == w).all()


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_is_unpacked_or_refused(byte: int) -> None:
    data = np.full(128, byte, np.uint8)
    for layout, cols, base in (("2bit", 16, 4), ("1.6bit", 20, 3)):
        digits = [byte // base**f % base for f in range(cols // 4)]
        if byte >= base ** (cols // 4) or 3 in digits:
            with pytest.raises(k.KernelInputError, match=r"^data must not hold"):
                k.unpack(data, 32, cols, layout)
        else:
            assert (k.unpack(data, 32, cols, layout) == np.repeat(digits, 4).astype(np.int8) - 1).all()


@settings(deadline=None, max_examples=30)
@given(seeds, odd, st.integers(1, 300), st.integers(1, 20))
def test_layouts_give_the_same_bits(seed: int, rows: int, cols: int, tokens: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = cases.matrix(rng, rows, cols), cases.floats(rng, tokens, cols)
    assert (product(w, x) == product(k.relayout(w, "1.6bit"), x)).all()


def product(w: k.PackedMatrix, x: np.ndarray, **tiles: int) -> np.ndarray:
    """Quantise and multiply."""
    q, scale, total = quantised(w, x)
    out = cases.blank(len(x), w.padded_rows)
    k.ternary_linear(w, q, scale, total, out, **tiles)
    return out


def quantised(w: k.PackedMatrix, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q = np.empty((len(x), w.padded_cols), np.int8)
    scale, total = np.empty(len(x), np.float32), np.empty(len(x), np.int32)
    k.quantise_rows(x, q, scale, total)
    return q, scale, total


@settings(deadline=None, max_examples=60)
@given(seeds, odd, st.integers(1, 300), st.integers(0, 20), st.sampled_from([-128, -1, 0, 127, None]), layouts)
def test_linear_is_the_integer_product(
    seed: int, rows: int, cols: int, tokens: int, level: int | None, layout: str
) -> None:
    rng = np.random.default_rng(seed)
    weights = ternary(seed, rows, cols)
    scales = rng.uniform(0.1, 2, -(-rows // 32) * 2).astype(np.float32)
    w = k.PackedMatrix(k.pack(weights, layout), scales, rows, cols, layout)
    q = np.zeros((tokens, w.padded_cols), np.int8)
    q[:, :cols] = rng.integers(-128, 128, (tokens, cols)) if level is None else level
    scale = rng.uniform(0.01, 10, tokens).astype(np.float32)
    out = cases.blank(tokens, w.padded_rows)
    k.ternary_linear(w, q, scale, q.sum(axis=1, dtype=np.int32), out)
    exact = (q[:, :cols].astype(np.int64) @ weights.T.astype(np.int64)).astype(np.float32)
    assert (out[:, :rows] == exact * (np.repeat(scales, 16)[:rows] * scale[:, None])).all()
    assert (out[:, rows:] == 0).all()


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("tokens", range(1, 10))
def test_largest_sum_does_not_overflow(layout: str, tokens: int) -> None:
    cols = 1 << 17
    w = k.PackedMatrix(k.pack(np.ones((1, cols), np.int8), layout), np.ones(2, np.float32), 1, cols, layout)
    q = np.zeros((tokens, w.padded_cols), np.int8)
    q[:, :cols] = -128
    out = cases.blank(tokens, 32)
    k.ternary_linear(w, q, np.ones(tokens, np.float32), q.sum(axis=1, dtype=np.int32), out)
    assert (out[:, 0] == -(2.0**24)).all()


@settings(deadline=None)
@given(seeds, st.lists(st.integers(0, 5), max_size=4), layouts)
def test_any_split_gives_the_same_bits(seed: int, cuts: list[int], layout: str) -> None:
    rng = np.random.default_rng(seed)
    w, x = cases.matrix(rng, 150, 70, layout), cases.floats(rng, 3, 70)
    q, scale, total = quantised(w, x)
    whole, parts = cases.blank(3, w.padded_rows), cases.blank(3, w.padded_rows)
    k.ternary_linear(w, q, scale, total, whole)
    edges = [0, *sorted(cuts), w.tiles]
    for begin, end in itertools.pairwise(edges):
        k.ternary_linear(w, q, scale, total, parts, begin, end)
    assert (whole == parts).all()
    assert not (whole == cases.UNWRITTEN).any()


def test_a_range_writes_its_own_columns_only() -> None:
    rng = np.random.default_rng(1)
    out = product(cases.matrix(rng, 128, 32), cases.floats(rng, 2, 32), begin=1, end=3)
    assert (out[:, :32] == cases.UNWRITTEN).all()
    assert (out[:, 96:] == cases.UNWRITTEN).all()
    assert not (out[:, 32:96] == cases.UNWRITTEN).any()


@settings(deadline=None)
@given(seeds, st.integers(1, 20), layouts)
def test_a_row_does_not_depend_on_its_batch(seed: int, tokens: int, layout: str) -> None:
    rng = np.random.default_rng(seed)
    w, x = cases.matrix(rng, 40, 50, layout), cases.floats(rng, tokens, 50)
    together = product(w, x)
    for t in range(tokens):
        assert (together[t] == product(w, x[t : t + 1])[0]).all()


@pytest.mark.parametrize("offset", [0, 1, 8, 64])
def test_read_only_memory_map(tmp_path, offset: int) -> None:
    """At any offset of the file, with the same bits, and without a second compilation."""
    rng = np.random.default_rng(2)
    w, x = cases.matrix(rng, 70, 50), cases.floats(rng, 2, 50)
    (tmp_path / "weights").write_bytes(bytes(offset) + w.data.tobytes())
    data = np.memmap(tmp_path / "weights", np.uint8, "r", offset)
    mapped = k.PackedMatrix(data, w.scales, w.rows, w.cols)
    assert np.shares_memory(mapped.data, data)
    assert (product(mapped, x) == product(w, x)).all()
    assert len(linear._linear.signatures) == 1


def test_packed_matrix_keeps_no_copy_and_leaves_the_caller_alone() -> None:
    data, scales = np.full(k.packed_bytes(32, 16), 0x55, np.uint8), np.ones(2, np.float32)
    w = k.PackedMatrix(data, scales, 32, 16)
    assert np.shares_memory(w.data, data)
    assert data.flags.writeable
    assert not w.data.flags.writeable
    assert (w.padded_rows, w.padded_cols, w.tiles, w.nbytes) == (32, 16, 1, 128 + 8)


def test_interleaved_gate_and_up_meet_in_the_gated_product() -> None:
    """F = 20 needs padding: the product of separate matrices equals that of the merged one."""
    rng = np.random.default_rng(4)
    gate, up = ternary(5, 20, 40), ternary(6, 20, 40)
    x = cases.floats(rng, 3, 40)
    merged = k.interleave_gate_up(gate, up)
    w = k.PackedMatrix(k.pack(merged), np.ones(4, np.float32), *merged.shape)
    out = cases.blank(3, 32)
    k.gated_product(product(w, x), "relu2", out)
    parts = [product(k.PackedMatrix(k.pack(half), np.ones(2, np.float32), 20, 40), x)[:, :20] for half in (gate, up)]
    positive = np.maximum(parts[0], 0)
    assert (out[:, :20] == positive * positive * parts[1]).all()
    assert (out[:, 20:] == 0).all()
