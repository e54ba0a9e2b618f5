"""Cases of the draws and of the sampler."""

import itertools
from collections.abc import Iterator

import numpy as np

from trireme_kernels.arrays import F32
from trireme_kernels.cases.common import Cases, Random, floats

SETTINGS = (
    (0.0, 0, 1.0),
    (1.0, 0, 1.0),
    (0.7, 1, 1.0),
    (1.3, 7, 1.0),
    (1.0, 0, 0.5),
    (0.8, 20, 0.9),
    (1.0, 0, 1e-9),
    (2.0, 10**6, 0.999),
    (1e-30, 3, 0.5),
)
"""Temperature, top_k, top_p."""


def draw(rng: Random) -> Cases:
    """Seeds and positions of every size."""
    for seed in (0, 1, 1 << 63, (1 << 64) - 1, int(rng.integers(1 << 62))):
        for position in (0, 1, 4095, (1 << 62) + 5):
            yield {"seed": seed, "position": position}


def _logit_rows(rng: Random) -> Iterator[F32]:
    yield floats(rng, 300, spread=3.0)
    yield floats(rng, 1000, spread=0.01)
    yield np.round(floats(rng, 200) * 2)  # many ties
    yield np.zeros(50, np.float32)
    yield np.array([0.0, -0.0, -0.0, 0.0, -1.0], np.float32)
    yield np.array([1e38, -3e38, 3e38, 3e38], np.float32)
    yield np.array([5.0], np.float32)
    yield floats(rng, 500, spread=40.0)  # most masses are 0


def sampling(rng: Random) -> Cases:
    """Every mixture of settings over peaked, flat, tied and extreme logits."""
    for row in _logit_rows(rng):
        for (temperature, top_k, top_p), position in itertools.product(SETTINGS, range(4)):
            settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            yield {"logits": row, **settings, "seed": int(rng.integers(1 << 62)), "position": position}
