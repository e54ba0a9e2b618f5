"""The int8 head and its 4-bit first pass: near the bfloat16 head, and never another token than the int8 head."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trireme_kernels as k
from trireme_kernels import cases
from trireme_kernels.head_first_pass import LOWEST


def model(seed: int, vocabulary: int = 700, width: int = 192) -> tuple[np.ndarray, k.HeadWeights]:
    table = cases.bfloats(np.random.default_rng(seed), vocabulary, width)
    return table, k.quantise_head(table, "int8+4bit", seed)


def activations(seed: int, table: np.ndarray, kind: int) -> np.ndarray:
    """Two rows: random, with large channels, close to a row of the table, or tiny."""
    rng = np.random.default_rng(seed)
    x = cases.floats(rng, 2, table.shape[1])
    if kind == 1:
        x[:, rng.integers(0, x.shape[1], 4)] *= 30
    if kind == 2:
        x += 3 * (table[rng.integers(len(table), size=2)].astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x * np.float32(1e-20) if kind == 3 else x


def both(x: np.ndarray, head: k.HeadWeights, keep: int) -> tuple[np.ndarray, np.ndarray]:
    rows, full, some = k.quantise_for_head(x, head), *np.full((2, len(x), head.vocabulary), 5, np.float32)
    k.int8_head_logits(rows, head, full)
    k.largest_logits(rows, head, keep, some)
    return full, some


def test_close_to_the_bfloat16_head() -> None:
    table, head = model(0)
    x = activations(0, table, 0)
    exact = np.empty((2, 700), np.float32)
    k.head_logits(x, table, exact)
    full, _ = both(x, head, 1)
    error = full - exact
    assert np.sqrt((error**2).mean()) < 0.015 * exact.std()
    assert np.abs(error).max() < 0.06 * exact.std()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 999), st.integers(0, 3), st.integers(1, 40))
def test_the_largest_logits_are_those_of_the_int8_head(seed: int, kind: int, keep: int) -> None:
    """All of the `keep` largest, ties with the last of them included, with the same bits; others at most LOWEST."""
    table, head = model(seed % 3)
    full, some = both(activations(seed, table, kind), head, keep)
    for whole, part in zip(full, some, strict=True):
        counted = whole >= np.sort(whole)[-keep]
        assert (part[counted] == whole[counted]).all()
        assert np.isin(part[~counted], [LOWEST, *whole[~counted]]).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 999), st.integers(0, 3), st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0, 5.0]), st.floats(0.1, 1)
)
def test_sampling_draws_the_same_token(seed: int, kind: int, top_k: int, temperature: float, top_p: float) -> None:
    table, head = model(seed % 3)
    full, some = both(activations(seed, table, kind), head, top_k)
    for whole, part in zip(full, some, strict=True):
        drawn = [k.sample(logits, temperature, top_k, top_p, seed, 7) for logits in (whole, part)]
        assert drawn[0] == drawn[1]


def test_ties_are_kept() -> None:
    """Equal rows of the table have equal logits: all of them stay, and the lowest id wins."""
    table, _ = model(1)
    table[[5, 300, 650]] = table[77]
    head = k.quantise_head(table, "int8+4bit", 3)
    x = (table[[77]].astype(np.uint32) << np.uint32(16)).view(np.float32)
    full, some = both(x, head, 1)
    assert (some[0, [5, 77, 300, 650]] == full.max()).all()
    assert k.sample(some[0], 0.0, 0, 1.0, 0, 0) == 5


def test_most_rows_are_left_out_when_one_stands_out() -> None:
    """Otherwise the first pass would be for nothing."""
    table, head = model(2, 4000, 512)
    _, some = both(activations(4, table, 2), head, 1)
    assert ((some > LOWEST).sum(axis=1) < 40).all()


def test_errors_of_codes_are_uniform_and_bounded() -> None:
    """What the bound of the first pass rests on."""
    table, head = model(3, 640, 512)
    table[:, :] = cases.bfloats(np.random.default_rng(9), 1, 1)  # equal weights are the worst case without dither
    head = k.quantise_head(table, "int8+4bit", 1)
    codes = np.stack([head.codes & 15, head.codes >> 4], axis=-2)  # tile, block, row, half, byte
    codes = codes.transpose(0, 2, 1, 3, 4).reshape(640, 512).astype(int)
    error = head.levels - (17 * codes + 8 - 127 - head.dither.astype(int))
    assert np.abs(error).max() == 8
    counts = np.bincount(error[0] + 8, minlength=17)
    assert counts.min() > 10
    assert counts.max() < 60


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (3, 22), (21, 22), (5, 5)])
def test_parts_write_their_own_rows(begin: int, end: int) -> None:
    table, head = model(0)
    rows = k.quantise_for_head(activations(0, table, 0), head)
    whole, out = np.empty((2, 700), np.float32), cases.blank(2, 700)
    k.int8_head_logits(rows, head, whole)
    k.int8_head_logits(rows, head, out, begin, end)
    mine = np.isin(np.arange(700) // 32, range(begin, end))
    assert (out[:, mine] == whole[:, mine]).all()
    assert (out[:, ~mine] == cases.UNWRITTEN).all()


def test_rows_that_are_not_finite_give_nan() -> None:
    table, head = model(0)
    x = activations(0, table, 0)
    x[1, 3] = np.nan
    full, some = both(x, head, 1)
    for logits in (full, some):
        assert np.isfinite(logits[0]).all()
        assert np.isnan(logits[1]).all()
        with pytest.raises(k.KernelInputError, match="not finite"):
            k.sample(logits[1], 0.0, 0, 1.0, 0, 0)


@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": 200}, "levels"),
        ({"levels": np.zeros((700, 192), np.uint8)}, "levels"),
        ({"scales": np.zeros(0, np.float32)}, "scales"),
        ({"totals": np.zeros(699, np.int32)}, "totals"),
        ({"codes": np.zeros((1, 24, 32, 4), np.uint8)}, "codes"),
        ({"dither": None}, "dither"),
    ],
)
def test_head_weights_are_checked(change: dict, blamed: str) -> None:
    _, head = model(0)
    names = ("hidden_size", "levels", "scales", "totals", "codes", "dither")
    with pytest.raises(k.KernelInputError, match=f"^{blamed} "):
        k.HeadWeights(**{**{name: getattr(head, name) for name in names}, **change})
