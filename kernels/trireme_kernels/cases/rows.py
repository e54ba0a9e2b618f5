"""Cases of what works row by row: quantiser, ternary product, norms, residual sum, gates."""

import itertools

import numpy as np

from trireme_kernels.arrays import round_up
from trireme_kernels.cases.common import Case, Cases, Random, blank, floats, matrix
from trireme_kernels.gates import ACTIVATIONS
from trireme_kernels.packing import LAYOUTS


def quantise(rng: Random) -> Cases:
    """Ordinary, tiny, huge, zero, half-way and faulty rows."""
    rows = [floats(rng, 5, 37), floats(rng, 2, 16, spread=1e-7), floats(rng, 2, 1, spread=1e30), blank(0, 20)]
    rows += [np.zeros((1, 20), np.float32), np.append(np.arange(-127, 127) + 0.5, 127).astype(np.float32)[None]]
    rows += [np.array([[1, np.nan, 2], [np.inf, 1, 2], [3e38, -3e38, 1e-45]], np.float32)]
    for x in rows:
        tokens = len(x)
        q = np.full((tokens, round_up(x.shape[1], 16)), 99, np.int8)
        yield {"x": x, "q": q, "scale": blank(tokens), "total": np.full(tokens, 99, np.int32)}


def linear(rng: Random) -> Cases:
    """Padded and whole shapes, no token to several, extreme activations, part of the tiles."""
    shapes: tuple[tuple[int, int, int, Case], ...] = (
        (32, 16, 1, {}),
        (1, 1, 2, {}),
        (70, 50, 3, {}),
        (64, 33, 0, {}),
        (40, 400, 1, {"begin": 1}),
        (130, 64, 5, {"begin": 1, "end": 3}),
        (33, 60, 4, {}),
        (40, 81, 6, {}),
        (64, 100, 15, {}),
        (32, 40, 136, {}),
    )
    for layout, (rows, cols, tokens, tiles) in itertools.product(LAYOUTS, shapes):
        w = matrix(rng, rows, cols, layout)
        q = rng.integers(-128, 128, (tokens, w.padded_cols)).astype(np.int8)
        q[:1] = -128
        total = q.sum(axis=1, dtype=np.int32)
        scale = rng.uniform(1e-3, 1e3, tokens).astype(np.float32)
        yield {"w": w, "q": q, "scale": scale, "total": total, "out": blank(tokens, w.padded_rows), **tiles}


def norm(rng: Random) -> Cases:
    """Widths off the 16 lanes, small and large values."""
    for tokens, width, spread in ((1, 16, 1.0), (3, 50, 1e-4), (2, 7, 1e6), (0, 16, 1.0), (2, 256, 1.0)):
        x = floats(rng, tokens, width, spread=spread)
        yield {"x": x, "gain": floats(rng, width), "eps": 1e-5, "out": blank(tokens, width)}


def norm_quantise(rng: Random) -> Cases:
    """The rows of `quantise` with gains, among them faulty ones."""
    for case in quantise(rng):
        yield {**case, "gain": floats(rng, case["x"].shape[1]), "eps": 1e-5}


def residual(rng: Random) -> Cases:
    """With and without padding in y."""
    for tokens, width, padded in ((1, 16, 16), (3, 50, 64), (0, 4, 32)):
        yield {"x": floats(rng, tokens, width), "y": floats(rng, tokens, padded)}


def gate(rng: Random) -> Cases:
    """Every activation; ordinary and large gates, zeros of both signs."""
    sizes = ((1, 16, 1.0), (3, 48, 30.0), (0, 16, 1.0), (2, 16, 1e4))
    for activation, (tokens, width, spread) in itertools.product(ACTIVATIONS, sizes):
        gate_up = floats(rng, tokens, 2 * width, spread=spread)
        gate_up[:, 3:5] = 0.0, -0.0
        yield {"gate_up": gate_up, "activation": activation, "out": blank(tokens, width)}
