"""Head and sampler: exact twins for any setting, honest probabilities, and draws that depend on nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trireme_kernels as k
from trireme_kernels import cases, sampling
from trireme_kernels.naive import tokens as naive

rows = st.one_of(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=200),
    st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=200),  # ties
)


@settings(deadline=None, max_examples=150)
@given(
    rows,
    st.floats(0.01, 5),
    st.one_of(st.just(0), st.integers(1, 250)),
    st.one_of(st.just(1.0), st.floats(1e-6, 1)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**31),
)
def test_sample_equals_sorting_everything(values, temperature, top_k, top_p, seed, position) -> None:
    logits = np.array(values, np.float32)
    setting = (temperature, top_k, top_p, seed, position)
    assert k.sample(logits, *setting) == naive.sample(logits, *setting)


def test_greedy_takes_the_lowest_of_equal_logits() -> None:
    logits = np.array([-1, 0.0, -0.0, 0.0, -2], np.float32)
    assert k.sample(logits, 0.0, 0, 1.0, 0, 0) == 1
    assert k.sample(logits[[0, 2, 1]], 0.0, 0, 1.0, 0, 0) == 1
    assert k.sample(np.array([-5, -3, -4], np.float32), 0.0, 5, 0.1, 9, 9) == 1


def draws(logits: list[float], count: int, temperature=1.0, top_k=0, top_p=1.0, seed=11) -> np.ndarray:
    row = np.array(logits, np.float32)
    drawn = [k.sample(row, temperature, top_k, top_p, seed, position) for position in range(count)]
    return np.bincount(drawn, minlength=row.size)


def test_frequencies_follow_the_probabilities() -> None:
    """Chi-square of 20,000 draws over 8 tokens: 99.9 % quantile with 7 degrees of freedom is 24.3."""
    logits = np.array([1, 0, 2, -1, 0.5, 1.5, -2, 0], np.float64)
    for temperature in (0.5, 1.0, 2.0):
        p = np.exp(logits / temperature)
        expected = p / p.sum() * 20_000
        counts = draws(logits.tolist(), 20_000, temperature)
        assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_top_k_and_top_p_keep_the_right_tokens() -> None:
    logits = np.log([0.1, 0.4, 0.05, 0.25, 0.2]).tolist()
    kept = {
        (0, 1.0): [0, 1, 2, 3, 4],
        (1, 1.0): [1],
        (3, 1.0): [1, 3, 4],
        (9, 1.0): [0, 1, 2, 3, 4],
        (0, 0.39): [1],
        (0, 0.41): [1, 3],
        (0, 0.86): [0, 1, 3, 4],
        (2, 0.6): [1],  # 0.4 of 0.65 is more than 0.6: top_p counts what top_k left
        (2, 0.7): [1, 3],
    }
    for (top_k, top_p), tokens in kept.items():
        counts = draws(logits, 400, top_k=top_k, top_p=top_p)
        assert np.flatnonzero(counts).tolist() == tokens, (top_k, top_p)


def test_equal_logits_are_kept_from_the_lowest_id() -> None:
    assert np.flatnonzero(draws([1.0] * 10, 300, top_k=4)).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(draws([1.0] * 10, 300, top_p=0.35)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("target", "token"), [(0, 1), (4, 1), (5, 3), (9, 3), (10, 4)])
def test_the_running_mass_must_exceed_the_target(target: int, token: int) -> None:
    """A token of mass 0 is never drawn, and a token of mass m by exactly m of the targets."""
    logits, masses = np.zeros(5, np.float32), np.array([0, 5, 0, 5, 1])
    assert sampling._find(logits, masses, np.float32(-1), 5, target) == token


def test_settings_that_keep_everything_do_not_change_the_draw() -> None:
    logits = cases.floats(np.random.default_rng(0), 500, spread=2)
    for position in range(50):
        off = k.sample(logits, 1.0, 0, 1.0, 3, position)
        assert off == k.sample(logits, 1.0, 500, 1.0, 3, position)
        assert off == k.sample(logits, 1.0, 0, 1 - 2**-53, 3, position)


def test_draws_depend_on_seed_and_position_only() -> None:
    logits = np.zeros(1000, np.float32)
    first = [k.sample(logits, 1.0, 0, 1.0, 5, position) for position in range(20)]
    again = [k.sample(logits, 1.0, 0, 1.0, 5, position) for position in reversed(range(20))]
    other = [k.sample(logits, 1.0, 0, 1.0, 6, position) for position in range(20)]
    assert first == again[::-1]
    assert first != other
    assert len(set(first)) > 10


def test_a_large_vocabulary_equals_the_twin() -> None:
    """Size of a real one: many buckets, the cut inside a crowded one, and a flat row where all share a bucket."""
    rng = np.random.default_rng(8)
    peaked, flat = cases.floats(rng, 128_256, spread=4), np.zeros(128_256, np.float32)
    for logits in (peaked, flat):
        for setting in ((1.0, 0, 1.0), (0.8, 50, 0.95), (3.0, 40_000, 1.0), (3.0, 0, 0.9)):
            assert k.sample(logits, *setting, 2**63 + 1, 77) == naive.sample(logits, *setting, 2**63 + 1, 77)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 2))
def test_philox_is_numpys(seed: int, position: int) -> None:
    generator = np.random.Generator(np.random.Philox(key=seed, counter=position))
    assert k.philox_uniform(seed, position) == generator.random()


def test_philox_block_of_the_paper() -> None:
    """Known answer of the Random123 distribution: philox4x64-10, counter 0 and key 0, first word 16554d9eca36314c.

    NumPy counts before it draws, so the zero counter is the one before position 0; the word of counter 1 is checked
    through NumPy above, and here the generator's own zero block.
    """
    assert np.random.Philox(key=0, counter=(1 << 256) - 1).random_raw() == 0x16554D9ECA36314C


@settings(deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, 4), max_size=3), st.integers(1, 4))
def test_logits_do_not_depend_on_split_or_batch(seed: int, cuts: list[int], tokens: int) -> None:
    rng = np.random.default_rng(seed)
    x, table = cases.floats(rng, tokens, 50), cases.bfloats(rng, 110, 50)
    whole, parts, single = cases.blank(tokens, 110), cases.blank(tokens, 110), cases.blank(1, 110)
    k.head_logits(x, table, whole)
    edges = [0, *sorted(cuts), 4]
    for begin, end in itertools.pairwise(edges):
        k.head_logits(x, table, parts, begin, end)
    k.head_logits(x[-1:], table, single)
    assert (parts == whole).all()
    assert (single[0] == whole[-1]).all()


def test_logits_against_float64() -> None:
    rng = np.random.default_rng(0)
    x, table = cases.floats(rng, 2, 700), cases.bfloats(rng, 40, 700)
    out = cases.blank(2, 40)
    k.head_logits(x, table, out)
    weights = (table.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    assert np.abs(out - x.astype(np.float64) @ weights.T).max() < 3e-5


def test_embedding_and_head_share_a_read_only_table(tmp_path) -> None:
    """A tied table comes from a read-only map; neither kernel compiles again for it."""
    from trireme_kernels import head

    table = cases.bfloats(np.random.default_rng(0), 20, 16)
    (tmp_path / "table").write_bytes(table.tobytes())
    mapped = np.memmap(tmp_path / "table", np.uint16, "r", shape=(20, 16))
    x, out = cases.blank(2, 16), cases.blank(2, 20)
    k.embed(mapped, np.array([3, 19], np.int32), x)
    k.head_logits(x, mapped, out)
    assert (x.view(np.uint32) >> 16 == table[[3, 19]]).all()
    k.embed(table, np.array([3, 19], np.int32), x)
    assert len(head._embed.signatures) == 1
    assert len(head._logits.signatures) == 1
