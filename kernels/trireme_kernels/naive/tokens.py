"""Twins of the embedding, the output head and the sampler."""

import itertools
import math

import numpy as np

from trireme_kernels.arrays import F32, I32, I64, U16
from trireme_kernels.head_int8 import Activations
from trireme_kernels.head_weights import HeadWeights
from trireme_kernels.naive.attention import levels
from trireme_kernels.naive.layers import quantise_rows
from trireme_kernels.naive.summation import exp_nonpositive, lane_sum, widen_bfloat


def embed(table: U16, ids: I32, out: F32) -> None:
    """Look rows up."""
    out[:] = widen_bfloat(table)[ids]


def head_logits(x: F32, table: U16, out: F32, begin: int = 0, end: int | None = None) -> None:
    """One token at a time."""
    rows = slice(32 * begin, None if end is None else 32 * end)
    weights = widen_bfloat(table[rows])
    for t, activations in enumerate(x):
        out[t, rows] = lane_sum(weights * activations)


def quantise_head(table: U16, kind: str = "int8", seed: int = 0) -> HeadWeights:
    """Row by row, code by code."""
    vocabulary, hidden = table.shape
    width = -(-hidden // 64) * 64
    found, scales = levels(widen_bfloat(table))
    rows = np.zeros((vocabulary, width), np.int8)
    rows[:, :hidden] = found
    exact = (rows, scales, rows.sum(axis=1, dtype=np.int32))
    if kind == "int8":
        return HeadWeights(hidden, *exact)
    dither = np.random.default_rng(seed).integers(0, 17, width).astype(np.uint8)
    codes = np.zeros((-(-vocabulary // 32), width // 8, 32, 4), np.uint8)
    for v, k in itertools.product(range(vocabulary), range(width)):
        code = (int(rows[v, k]) + 127 + int(dither[k])) // 17
        codes[v // 32, k // 8, v % 32, k % 4] += code << 4 * (k % 8 // 4)
    return HeadWeights(hidden, *exact, codes, dither)


def quantise_for_head(x: F32, head: HeadWeights) -> Activations:
    """The quantiser of the linear layers."""
    q, scale, total = np.empty((len(x), head.width), np.int8), np.empty(len(x), np.float32), np.empty(len(x), np.int32)
    quantise_rows(x, q, scale, total)
    integers = q.astype(np.int64)
    constant = (
        np.zeros(len(x), np.int32) if head.dither is None else integers @ (8 - 127 - head.dither.astype(np.int64))
    )
    bound = [math.ceil(9 * math.sqrt(24 * sum(int(v) ** 2 for v in row))) for row in integers]
    offset = (integers + 127).astype(np.uint8)
    return Activations(q, offset, scale, total, constant.astype(np.int32), np.array(bound, np.int32))


def _every_logit(x: Activations, head: HeadWeights) -> F32:
    sums = x.q.astype(np.int64) @ head.levels.astype(np.int64).T
    return sums.astype(np.float32) * (head.scales * x.scale[:, None])


def int8_head_logits(x: Activations, head: HeadWeights, out: F32, begin: int = 0, end: int | None = None) -> None:
    """Integers of 64 bits."""
    rows = slice(32 * begin, None if end is None else 32 * end)
    out[:, rows] = _every_logit(x, head)[:, rows]


def _weights_of_codes(head: HeadWeights) -> I64:
    """What the 4-bit codes stand for, for V rounded up to 32 rows."""
    if head.codes is None or head.dither is None:
        raise ValueError("a head without codes")
    rows, width = 32 * head.tiles, head.width
    v, k = np.arange(rows)[:, None], np.arange(width)
    codes = head.codes[v // 32, k // 8, v % 32, k % 4] >> (4 * (k % 8 // 4)) & 15
    return 17 * codes.astype(np.int64) + 8 - 127 - head.dither


def first_pass(x: Activations, head: HeadWeights, sums: I32, tops: F32, begin: int = 0, end: int | None = None) -> None:
    """The product with the weights that the codes stand for."""
    found = x.q.astype(np.int64) @ _weights_of_codes(head).T
    last = head.tiles if end is None else end
    for n in range(begin, last):
        rows = slice(32 * n, min(32 * n + 32, head.vocabulary))
        sums[:, 32 * n : 32 * n + 32] = 0
        sums[:, rows] = found[:, rows]
        least = (found[:, rows] - x.bound[:, None].astype(np.int64)).astype(np.float32) * (
            head.scales[rows] * x.scale[:, None]
        )
        tops[:, n] = np.where(np.isnan(least[:, 0]), -np.inf, least.max(axis=1))


def threshold(tops: F32, keep: int) -> F32:
    """Sort."""
    if keep > tops.shape[1]:
        return np.full(len(tops), -np.inf, np.float32)
    return np.sort(tops, axis=1)[:, -keep]


def rescore(
    x: Activations, head: HeadWeights, sums: I32, least: F32, out: F32, begin: int = 0, end: int | None = None
) -> None:
    """Compare, then choose."""
    rows = slice(32 * begin, head.vocabulary if end is None else 32 * end)
    scales = (head.scales * x.scale[:, None])[:, rows]
    at_most = (sums[:, : head.vocabulary][:, rows] + x.bound[:, None].astype(np.int64)).astype(np.float32) * scales
    out[:, rows] = np.where(at_most < least[:, None], np.float32(-3.4028235e38), _every_logit(x, head)[:, rows])


def largest_logits(x: Activations, head: HeadWeights, keep: int, out: F32) -> None:
    """The three steps."""
    tokens = len(x.scale)
    sums, tops = np.empty((tokens, 32 * head.tiles), np.int32), np.empty((tokens, head.tiles), np.float32)
    first_pass(x, head, sums, tops)
    rescore(x, head, sums, threshold(tops, keep), out)


def philox_uniform(seed: int, position: int) -> float:
    """NumPy's own generator."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


def sample(logits: F32, temperature: float, top_k: int, top_p: float, seed: int, position: int) -> int:
    """Sort everything, with Python's integers."""
    if temperature == 0:
        return int(np.argmax(logits))
    z = ((logits.astype(np.float64) - float(logits.max())) / temperature).astype(np.float32)
    masses = [int(mass) for mass in exp_nonpositive(z).astype(np.float64) * 2.0**40]
    kept = np.lexsort((np.arange(logits.size), -logits)).tolist()
    if top_k:
        kept = kept[:top_k]
    if top_p < 1:
        kept = _nucleus(kept, masses, math.ceil(top_p * sum(masses[i] for i in kept)))
    mass = sum(masses[i] for i in kept)
    target = min(int(philox_uniform(seed, position) * mass), mass - 1)
    return _first_beyond(sorted(kept), masses, target)


def _nucleus(ranked: list[int], masses: list[int], limit: int) -> list[int]:
    mass = 0
    for n, i in enumerate(ranked):
        mass += masses[i]
        if mass >= limit:
            return ranked[: n + 1]
    return ranked


def _first_beyond(ids: list[int], masses: list[int], target: int) -> int:
    running = 0
    for i in ids:
        running += masses[i]
        if running > target:
            return i
    raise AssertionError("the target is below the kept mass")
