"""Rotary embedding, KV pages and attention: outside references, and independence from batch, split and chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import trireme_kernels as k
from trireme_kernels import cases
from trireme_kernels.half import float_of_page, page_of_float

HEADS, KV, D = 6, 3, 16
WIDTH = (HEADS + 2 * KV) * D


class Cache:
    """Pages of one layer for `slots` sequences of up to `length` positions, in shuffled order."""

    def __init__(self, seed: int, slots: int, length: int, dtype: str = "float16") -> None:
        pages = -(-length // k.PAGE_TOKENS)
        order = np.random.default_rng(seed).permutation(slots * pages)
        self.table = order.reshape(slots, pages).astype(np.int32)
        self.format = k.KvFormat(KV, D, dtype)
        self.pages = self.format.empty(slots * pages)
        self.pages[:] = 0xFF  # NaN until written

    def step(self, qkv: np.ndarray, slots: list[int], positions: list[int], parts: int = 1) -> np.ndarray:
        """Append and attend one micro-batch, the work in `parts` parts."""
        rows = np.array(slots, np.int32), np.array(positions, np.int32)
        k.append_kv(qkv, HEADS * D, (HEADS + KV) * D, self.format, self.pages, self.table, *rows)
        out = cases.blank(len(qkv), HEADS * D)
        for part in range(parts):
            k.attention(qkv, HEADS, self.format, self.pages, self.table, *rows, out, part, parts)
        return out

    def keys(self) -> np.ndarray:
        """The keys of float16 or float32 pages, [page, KV head, position, element]."""
        numbers = self.pages.view(self.format.dtype)[..., : 16 * self.format.width]
        return numbers.reshape(*self.pages.shape[:2], self.format.width, 16)[:, :, :D].swapaxes(2, 3)


def prompt(seed: int, length: int) -> np.ndarray:
    return cases.floats(np.random.default_rng(seed), length, WIDTH)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 2e-6), ("int8", 0.03)])
def test_attention_against_float64(dtype: str, tolerance: float) -> None:
    """Plain softmax attention over the whole prompt, with K and V rounded; also: nothing later is seen."""
    n = 37
    qkv = prompt(1, n)
    out = Cache(1, 1, n, dtype).step(qkv, [0] * n, list(range(n)))
    q, key, value = np.split(qkv, [HEADS * D, (HEADS + KV) * D], axis=1)
    q = q.reshape(n, HEADS, D).astype(np.float64)
    rounded = np.float16 if dtype == "float16" else np.float32
    key, value = (a.astype(rounded).astype(np.float64).reshape(n, KV, D) for a in (key, value))
    key, value = (np.repeat(a, HEADS // KV, axis=1) for a in (key, value))
    scores = np.einsum("qhd,khd->hqk", q, key) / np.sqrt(D)
    scores[:, *np.triu_indices(n, 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    wanted = np.einsum("hqk,khd->qhd", weights / weights.sum(axis=-1, keepdims=True), value)
    assert np.abs(out - wanted.reshape(n, -1)).max() < tolerance


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 99),
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.integers(1, 7),
    st.sampled_from(k.KV_DTYPES),
)
def test_chunks_and_splits_give_the_same_bits(seed: int, chunks: list[int], parts: int, dtype: str) -> None:
    """A prompt in one piece on one thread, against chunks on several."""
    n = sum(chunks)
    qkv = prompt(seed, n)
    whole = Cache(seed, 1, n, dtype).step(qkv, [0] * n, list(range(n)))
    cache, done = Cache(seed + 1, 1, n, dtype), 0
    for size in chunks:
        rows = slice(done, done + size)
        part = cache.step(qkv[rows], [0] * size, list(range(done, done + size)), parts)
        assert (part == whole[rows]).all()
        done += size


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.lists(st.integers(1, 40), min_size=2, max_size=4), st.sampled_from(k.KV_DTYPES))
def test_batch_mates_do_not_matter(seed: int, lengths: list[int], dtype: str) -> None:
    """Sequences decoded together, against each alone."""
    together = Cache(seed, len(lengths), max(lengths), dtype)
    prompts = [prompt(seed + i, n) for i, n in enumerate(lengths)]
    last = []
    for i, (qkv, n) in enumerate(zip(prompts, lengths, strict=True)):
        together.step(qkv[:-1], [i] * (n - 1), list(range(n - 1)))
        last.append(Cache(seed + 9, 1, n, dtype).step(qkv, [0] * n, list(range(n)))[-1])
    rows = np.concatenate([qkv[-1:] for qkv in prompts])
    out = together.step(rows, list(range(len(lengths))), [n - 1 for n in lengths])
    assert (out == np.array(last)).all()


def test_a_part_writes_its_own_work_only() -> None:
    """Two rows of one block and six heads: the second of three parts is heads 2 and 3 of both."""
    qkv = prompt(0, 2)
    cache = Cache(0, 1, 2)
    whole = cache.step(qkv, [0, 0], [0, 1]).reshape(2, HEADS, D)
    out = cases.blank(2, HEADS * D)
    rows = np.zeros(2, np.int32), np.arange(2, dtype=np.int32)
    k.attention(qkv, HEADS, cache.format, cache.pages, cache.table, *rows, out, 1, 3)
    heads = out.reshape(2, HEADS, D)
    assert (heads[:, 2:4] == whole[:, 2:4]).all()
    assert (np.delete(heads, [2, 3], axis=1) == cases.UNWRITTEN).all()


def test_nothing_is_written_when_an_argument_is_bad() -> None:
    cache = Cache(0, 1, 16)
    before = cache.pages.copy()
    with pytest.raises(k.KernelInputError, match="positions"):
        cache.step(prompt(0, 2), [0, 0], [0, 16])
    assert (cache.pages == before).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_append_touches_its_own_places_only(dtype: str) -> None:
    cache = Cache(3, 2, 40, dtype)
    qkv = prompt(3, 2)
    cache.step(qkv, [0, 1], [0, 0])
    keys = cache.keys()
    written = np.zeros(keys.shape[:3], bool)
    written[cache.table[[0, 1], [0, 0]], :, 0] = True
    assert (np.isnan(keys).all(axis=-1) == ~written).all()
    wanted = qkv[1, HEADS * D : (HEADS + KV) * D].astype(dtype)
    assert (keys[cache.table[1, 0], :, 0].reshape(-1) == wanted).all()


def test_float32_pages_keep_the_very_numbers_that_halves_round() -> None:
    """Keys and values that are halves already: both kinds of pages give the same bits."""
    n = 70
    qkv = prompt(4, n)
    qkv[:, HEADS * D :] = qkv[:, HEADS * D :].astype(np.float16)
    exact, rounded = (Cache(4, 1, n, dtype).step(qkv, [0] * n, list(range(n))) for dtype in ("float32", "float16"))
    assert (exact == rounded).all()


@njit
def _narrow(x, out):
    for i in range(x.size):
        out[i] = page_of_float(out, x[i])


@njit
def _widen(bits, out):
    for i in range(bits.size):
        out[i] = float_of_page(bits[i])


def test_every_half_widens_and_narrows_as_numpy_does() -> None:
    bits = np.arange(1 << 16).astype(np.uint16)
    wide, back = np.empty(bits.size, np.float32), np.empty_like(bits)
    _widen(bits, wide)
    _narrow(wide, back)
    number = ~np.isnan(wide)
    assert (wide[number] == bits.view(np.float16).astype(np.float32)[number]).all()
    assert (back[number] == bits[number]).all()
    assert number.sum() == (1 << 16) - 2 * 1023


def test_floats_narrow_to_the_nearest_half_and_ties_to_even() -> None:
    raw = np.random.default_rng(0).integers(0, 1 << 32, 100_000).astype(np.uint32).view(np.float32)
    ties = np.arange(0x7BFF).astype(np.uint16).view(np.float16).astype(np.float32) * np.float32(1 + 2**-11)
    x = np.concatenate([raw[~np.isnan(raw)], ties, [65519.996, 65520, 65536, -1e30]]).astype(np.float32)
    bits = np.empty(x.size, np.uint16)
    _narrow(x, bits)
    with np.errstate(over="ignore"):
        assert (bits == x.astype(np.float16).view(np.uint16)).all()
    assert bits[-4:].tolist() == [0x7BFF, 0x7C00, 0x7C00, 0xFC00]


def test_rope_turns_by_the_angle_and_keeps_lengths() -> None:
    """Against complex numbers in float64; columns outside the heads stay."""
    x = cases.floats(np.random.default_rng(0), 3, 40)
    before = x.copy()
    positions = np.array([0, 7, 99], np.int32)
    k.rope(x, 3, 8, positions, *k.rope_tables(100, 8, 500000.0), offset=10)
    heads = before[:, 10:34].reshape(3, 3, 8).astype(np.float64)
    angle = positions[:, None] * 500000.0 ** (-np.arange(0, 8, 2) / 8)
    turned = (heads[..., :4] + 1j * heads[..., 4:]) * np.exp(1j * angle)[:, None]
    wanted = np.concatenate([turned.real, turned.imag], axis=-1).reshape(3, 24)
    assert np.abs(x[:, 10:34] - wanted).max() < 1e-5
    assert (x[:, :10] == before[:, :10]).all()
    assert (x[:, 34:] == before[:, 34:]).all()
    assert (x[0] == before[0]).all()


def test_rope_tables_round_frequency_and_angle_to_float32() -> None:
    cos, _ = k.rope_tables(4096, 128, 500000.0)
    frequency = np.float32(1) / np.float32(500000.0 ** (2 / 128))
    assert cos[4095, 1] == np.float32(np.cos(np.float64(np.float32(4095) * frequency)))
    assert cos[4095, 1] != np.float32(np.cos(4095 * 500000.0 ** (-2 / 128)))
