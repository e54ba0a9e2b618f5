"""Rotary embedding, KV pages and attention: outside references, and independence from batch, split and chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import trireme_kernels as k
from trireme_kernels import cases
from trireme_kernels.attention_plan import chunks_of, plan_blocks, plan_bytes
from trireme_kernels.half import float_of_page, page_of_float

HEADS, KV, D = 6, 3, 16
WIDTH = (HEADS + 2 * KV) * D


class Cache:
    """Pages of one layer for `slots` sequences of up to `length` positions, in shuffled order."""

    def __init__(self, seed: int, slots: int, length: int, dtype: str = "float32") -> None:
        pages = -(-length // k.PAGE_TOKENS)
        order = np.random.default_rng(seed).permutation(slots * pages)
        self.table = order.reshape(slots, pages).astype(np.int32)
        self.kv = k.KvFormat(KV, D, dtype)
        self.pages = self.kv.empty(slots * pages)
        self.pages.view(np.uint16)[:] = 0x7FFF  # NaN, as half and as float, until written

    def step(self, qkv: np.ndarray, slots: list[int], positions: list[int], parts: int = 1) -> np.ndarray:
        """Append and attend one micro-batch, in `parts` parts."""
        rows = np.array(slots, np.int32), np.array(positions, np.int32)
        k.append_kv(qkv, HEADS * D, (HEADS + KV) * D, self.kv, self.pages, self.table, *rows)
        out = cases.blank(len(qkv), HEADS * D)
        for part in range(parts):
            k.attention(qkv, HEADS, self.kv, self.pages, self.table, *rows, out, part, parts)
        return out


def prompt(seed: int, length: int) -> np.ndarray:
    return cases.floats(np.random.default_rng(seed), length, WIDTH)


def exact(qkv: np.ndarray, rounded) -> np.ndarray:
    """Plain softmax attention over the whole prompt in float64; `rounded` is what the cache does to keys and values."""
    n = len(qkv)
    q, key, value = np.split(qkv, [HEADS * D, (HEADS + KV) * D], axis=1)
    q = q.reshape(n, HEADS, D).astype(np.float64)
    key, value = (rounded(a.reshape(n, KV, D)).astype(np.float64) for a in (key, value))
    key, value = (np.repeat(a, HEADS // KV, axis=1) for a in (key, value))
    scores = np.einsum("qhd,khd->hqk", q, key) / np.sqrt(D)
    scores[:, *np.triu_indices(n, 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", weights / weights.sum(axis=-1, keepdims=True), value).reshape(n, -1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_attention_against_float64(dtype: str) -> None:
    """With K and V rounded as they are stored; also: nothing later is seen."""
    qkv = prompt(1, 137)
    out = Cache(1, 1, 137, dtype).step(qkv, [0] * 137, list(range(137)))
    assert np.abs(out - exact(qkv, lambda a: a.astype(dtype))).max() < 2e-6


def test_int8_attention_against_float64() -> None:
    """With K and V rounded to int8 levels what is left is the rounding of queries and weights; bounds are twice what
    was measured.
    """

    def levels(a: np.ndarray) -> np.ndarray:
        scale = np.abs(a).max(axis=-1, keepdims=True) / 127
        return np.rint(a / scale) * scale

    qkv = prompt(1, 137)
    out = Cache(1, 1, 137, "int8").step(qkv, [0] * 137, list(range(137)))
    error = np.abs(out - exact(qkv, levels))
    assert error.max() < 0.02
    assert np.sqrt((error**2).mean()) < 0.002
    assert np.abs(out - exact(qkv, lambda a: a)).max() < 0.06


def test_small_weights_of_a_block_count_beside_a_large_one() -> None:
    """64 equal weights 5,000 times smaller than that of another block still give their mean value."""
    qkv = np.zeros((128, WIDTH), np.float32)
    qkv[127, 0] = 8.517 * np.sqrt(D)  # exp(8.517) = 5000
    qkv[127, HEADS * D] = 1.0
    qkv[:64, (HEADS + KV) * D] = 1.0
    out = Cache(0, 1, 128, "int8").step(qkv, [0] * 128, list(range(128)))
    assert out[127, 0] == pytest.approx(64 / (5000 + 127), rel=0.05)


@pytest.mark.parametrize("dtype", k.KV_DTYPES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 7))
def test_chunks_and_splits_give_the_same_bits(dtype: str, seed: int, chunks: list[int], parts: int) -> None:
    """A prompt in one piece on one thread, against chunks on several; pages hold NaN where nothing was written."""
    n = sum(chunks)
    qkv = prompt(seed, n)
    whole = Cache(seed, 1, n, dtype).step(qkv, [0] * n, list(range(n)))
    cache, done = Cache(seed + 1, 1, n, dtype), 0
    for size in chunks:
        rows = slice(done, done + size)
        part = cache.step(qkv[rows], [0] * size, list(range(done, done + size)), parts)
        assert (part == whole[rows]).all()
        done += size


@pytest.mark.parametrize("dtype", k.KV_DTYPES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.lists(st.integers(1, 90), min_size=2, max_size=4))
def test_batch_mates_do_not_matter(dtype: str, seed: int, lengths: list[int]) -> None:
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


@pytest.mark.parametrize("dtype", k.KV_DTYPES)
@pytest.mark.parametrize("faulty", [slice(HEADS * D, (HEADS + KV) * D), slice((HEADS + KV) * D, None)])
def test_a_fault_in_a_later_row_is_not_seen_by_an_earlier_one(dtype: str, faulty: slice) -> None:
    """Rows of one block share what is read of a page, but not its faults: infinite keys, or values."""
    qkv = prompt(2, 24)
    good = Cache(0, 1, 24, dtype).step(qkv, [0] * 24, list(range(24)))
    bad = qkv.copy()
    bad[20, faulty] = np.inf
    out = Cache(0, 1, 24, dtype).step(bad, [0] * 24, list(range(24)))
    assert (out[:20] == good[:20]).all()
    assert not np.isfinite(out[20:]).any()


@pytest.mark.parametrize("dtype", k.KV_DTYPES)
def test_rows_of_a_sequence_need_not_be_neighbours(dtype: str) -> None:
    """Rows in any order, with gaps, are the rows of the whole prompt: blocks are of neighbours only."""
    qkv, order = prompt(4, 40), [0, 2, 3, 30, 29, 31, 32, 10, 39]
    whole, cache = (Cache(0, 1, 40, dtype) for _ in range(2))
    wanted = whole.step(qkv, [0] * 40, list(range(40)))
    cache.step(qkv, [0] * 40, list(range(40)))
    assert (cache.step(qkv[order], [0] * len(order), order, 3) == wanted[order]).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.integers(1, 12), st.integers(1, 5))
def test_parts_cover_the_work_once_and_evenly(lengths: list[int], parts: int, tail: int) -> None:
    """Every chunk of heads of every row once; no part has more than its share and one block's chunk."""
    slots = np.repeat(np.arange(len(lengths)), tail).astype(np.int32)
    positions = np.concatenate([np.arange(n, n + tail) for n in lengths]).astype(np.int32)
    times, works = np.zeros((len(slots), 5), np.int64), np.zeros(parts, np.int64)
    _count(slots, positions, np.zeros(plan_bytes(len(slots)) // 8, np.int64), times, works)
    assert (times == 1).all()
    assert works.max() <= works.sum() / parts + tail * (max(lengths) + tail + 65)


@njit
def _count(slots, positions, memory, times, works):
    plan = plan_blocks(slots, positions, slots.size, memory.ctypes.data)
    chunks = times.shape[1]
    for part in range(works.size):
        for block in range(plan.blocks):
            begin, end = chunks_of(plan, block, chunks, part, works.size)
            for t in range(plan.first[block], plan.first[block + 1]):
                times[t, begin:end] += 1
                works[part] += max(0, end - begin) * (positions[t] + 65)


def test_a_part_writes_its_own_work_only() -> None:
    qkv = prompt(0, 2)
    cache = Cache(0, 1, 2)
    whole = cache.step(qkv, [0, 0], [0, 1]).reshape(2 * HEADS, -1)
    out = cases.blank(2, HEADS * D)
    rows = np.zeros(2, np.int32), np.arange(2, dtype=np.int32)
    k.attention(qkv, HEADS, cache.kv, cache.pages, cache.table, *rows, out, 1, 3)
    items = out.reshape(2, HEADS, -1)  # both rows are one block; a part is the heads of one KV head
    assert (items[:, 2:4] == whole.reshape(items.shape)[:, 2:4]).all()
    assert (np.delete(items, [2, 3], axis=1) == cases.UNWRITTEN).all()


def test_nothing_is_written_when_an_argument_is_bad() -> None:
    cache = Cache(0, 1, 16)
    before = cache.pages.copy()
    with pytest.raises(k.KernelInputError, match="positions"):
        cache.step(prompt(0, 2), [0, 0], [0, 16])
    assert (cache.pages == before).all()


@pytest.mark.parametrize("dtype", k.KV_DTYPES)
def test_append_touches_its_own_places_only(dtype: str) -> None:
    """Two rows change two pages, by as many bytes as the format says for two tokens; untouched bytes stay."""
    cache = Cache(3, 2, 40, dtype)
    cache.pages[:] = 7
    before = cache.pages.copy()
    cache.step(prompt(3, 2) + 1000, [0, 1], [0, 0])
    changed = cache.pages != before
    assert changed[cache.table[[0, 1], [0, 0]]].any(axis=(1, 2)).all()
    assert not np.delete(changed, cache.table[[0, 1], [0, 0]], axis=0).any()
    assert changed.sum() <= 2 * cache.kv.token_bytes
    assert changed.sum() > 1.6 * cache.kv.token_bytes


def test_bytes_of_a_token() -> None:
    assert k.KvFormat(5, 128).token_bytes == 2 * 4 * 5 * 128
    assert k.KvFormat(5, 128, "float16").token_bytes == 2 * 2 * 5 * 128
    assert k.KvFormat(5, 128, "int8").token_bytes == 2 * 5 * (128 + 4)
    assert k.KvFormat(2, 33).width == 64
    pages = k.KvFormat(2, 33, "int8").empty(3)
    assert pages.shape == (3, 2, 32 * 64 + 128)
    assert pages.ctypes.data % 64 == 0


@pytest.mark.parametrize("change", [{"kv_heads": 0}, {"head_dim": 0}, {"head_dim": 1025}, {"dtype": "fp8"}])
def test_formats_are_checked(change: dict) -> None:
    with pytest.raises(k.KernelInputError, match=f"^{next(iter(change))} "):
        k.KvFormat(**{"kv_heads": 1, "head_dim": 8, **change})


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
