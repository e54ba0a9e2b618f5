"""Cases of the packed layouts, of relayouts and of merged gate and up rows."""

import itertools

import numpy as np

from trireme_kernels.cases.common import Cases, Random, floats, matrix
from trireme_kernels.isa import ISAS
from trireme_kernels.packing import LAYOUTS, pack


def isas(_rng: Random) -> Cases:
    """Every path."""
    yield from ({"isa": isa} for isa in ISAS)


def layouts(_rng: Random) -> Cases:
    """Both layouts."""
    for layout in LAYOUTS:
        yield {"layout": layout}


def packing(rng: Random) -> Cases:
    """Whole tiles, padded rows, padded columns, no rows, no columns, in both layouts."""
    for layout, (rows, cols) in itertools.product(LAYOUTS, ((32, 20), (1, 1), (33, 17), (70, 50), (0, 5), (5, 0))):
        yield {"w": rng.integers(-1, 2, (rows, cols)).astype(np.int8), "layout": layout}


def unpacking(rng: Random) -> Cases:
    """The same shapes, packed."""
    for case in packing(rng):
        rows, cols = case["w"].shape
        yield {"data": pack(**case), "rows": rows, "cols": cols, "layout": case["layout"]}


def relayouts(rng: Random) -> Cases:
    """From each layout to each, also of more rows than are unpacked at a time."""
    for old, new in itertools.product(LAYOUTS, LAYOUTS):
        yield {"matrix": matrix(rng, 70, 50, old), "layout": new}
    yield {"matrix": matrix(rng, 2100, 3), "layout": "1.6bit"}
    yield {
        "matrix": matrix(rng, 70, 50),
        "layout": "1.6bit",
        "data": np.zeros(96 * 3 * 4, np.uint8),
    }


def sizes(_rng: Random) -> Cases:
    """Shapes around the padding."""
    for rows, cols in ((0, 0), (1, 1), (32, 16), (33, 16), (32, 17), (100, 100)):
        yield from ({"rows": rows, "cols": cols, "layout": layout} for layout in LAYOUTS)


def interleave(rng: Random) -> Cases:
    """Weights, scales with more dimensions, vectors."""
    for shape in ((16, 3), (37, 5), (1, 1), (20,), (17, 2, 3)):
        yield {"gate": floats(rng, *shape), "up": floats(rng, *shape)}
