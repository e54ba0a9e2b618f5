"""Twins of the embedding, the output head and the sampler."""

import math

import numpy as np

from trireme_kernels.arrays import F32, I32, U16
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
