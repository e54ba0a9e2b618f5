"""The output head's table as integers, and its 4-bit first pass: what is stored and how it is made.

    levels   int8[V, W]      W = H rounded up to 64, with zeros;  a = max(largest |x| of the row, 1e-30)
                             level = round_half_even(x * fl(127 / a)), scale = fl(a / 127), as of int8 keys and values
    totals   int32[V]        sum of a row's levels

    codes    uint8[tiles, W / 8, 32, 4]              a tile is 32 rows, the last one padded
             code = (level + 127 + dither[k]) // 17, in 0..15, of row r of the tile and column k
             block of 128 bytes = 32 rows x 8 columns;  byte 4r + j:  low 4 bits k = 8b + j, high 4 bits k = 8b + 4 + j
    dither   uint8[W]        0..16, random, the same for all rows

With the dither the error e = level - (17 code + 8 - 127 - dither) of a weight is uniform on -8 .. 8 and independent
from column to column, whatever the weights are.  So the sum R of e * q over a row has more than an estimate: e has
variance 24 and E exp(s e) <= exp(12 s^2) (sinh's product formula shows it factor by factor), hence

    P(|R| >= t sqrt(24) |q|) <= 2 exp(-t^2 / 2)

`head_first_pass.py` uses t = 9 for all rows at once: with 128,256 rows fewer than one step in 10^12 has any row beyond
its bound.  (Without a probability, by Cauchy and Schwarz, the bound would be 5.6 times as wide for 2,560 columns and
keep every row.)  The argument needs a dither that the activations do not depend on: it is drawn when the table is
quantised and influences no result.
"""

from dataclasses import dataclass

import numpy as np

from trireme_kernels.arrays import ANY, F32, I8, I32, U8, U16, frozen, require, require_array, round_up
from trireme_kernels.errors import KernelInputError

HEAD_KINDS = ("int8", "int8+4bit")
CODE_STEP = 17
MAX_WIDTH = 1 << 16
"""Sums of 17 * 15 * 127 for each column stay below 2**31."""
ROWS_AT_A_TIME = 1024
"""Rows quantised at a time, a multiple of 32: bounds the memory that is needed beside the result."""
_SMALLEST = np.float32(1e-30)


@dataclass(frozen=True, eq=False, slots=True)
class HeadWeights:
    """An output head of V tokens and H activations; the arrays as drawn above, codes and dither of one kind only.

    Arrays may be read-only memory maps.  Raises `KernelInputError`.
    """

    hidden_size: int
    levels: I8
    scales: F32
    totals: I32
    codes: U8 | None = None
    dither: U8 | None = None

    def __post_init__(self) -> None:
        """Check sizes; keep read-only views."""
        require("hidden_size", 0 < self.hidden_size <= MAX_WIDTH, f"must lie in 1..{MAX_WIDTH}")
        require_array("scales", self.scales, np.float32, (self.scales.size,))
        require("scales", self.scales.size > 0, "must not be empty")
        width, rows = round_up(self.hidden_size, 64), round_up(self.vocabulary, 32)
        require_array("levels", self.levels, np.int8, (self.vocabulary, width))
        require_array("totals", self.totals, np.int32, (self.vocabulary,))
        if self.codes is not None or self.dither is not None:
            require_array("codes", self.codes, np.uint8, (rows // 32, width // 8, 32, 4))
            require_array("dither", self.dither, np.uint8, (width,))
        for name in ("levels", "scales", "totals", "codes", "dither"):
            array = getattr(self, name)
            object.__setattr__(self, name, None if array is None else frozen(array))

    @property
    def kind(self) -> str:
        """One of `HEAD_KINDS`."""
        return HEAD_KINDS[0] if self.codes is None else HEAD_KINDS[1]

    @property
    def vocabulary(self) -> int:
        """Rows."""
        return self.scales.size

    @property
    def width(self) -> int:
        """Columns with padding."""
        return round_up(self.hidden_size, 64)

    @property
    def tiles(self) -> int:
        """Work items of 32 rows."""
        return -(-self.vocabulary // 32)


def quantise_head(table: U16, kind: str = "int8", seed: int = 0) -> HeadWeights:
    """Quantise uint16[V, H] of bfloat16 bits; `seed` draws the dither and changes no logit that counts.

    Raises `KernelInputError`, also for a row that is not finite.
    """
    require_array("table", table, np.uint16, (ANY, ANY))
    require("table", table.size > 0, "must not be empty")
    require("kind", kind in HEAD_KINDS, f"must be one of {', '.join(HEAD_KINDS)}")
    require("seed", isinstance(seed, int) and seed >= 0, "must be an int, not negative")
    vocabulary, hidden = table.shape
    width = round_up(hidden, 64)
    levels, scales = np.empty((vocabulary, width), np.int8), np.empty(vocabulary, np.float32)
    for first in range(0, vocabulary, ROWS_AT_A_TIME):
        rows = slice(first, first + ROWS_AT_A_TIME)
        levels[rows], scales[rows] = quantise_table_rows(table[rows])
    totals = levels.sum(axis=1, dtype=np.int32)
    if kind == "int8":
        return HeadWeights(hidden, levels, scales, totals)
    dither = draw_dither(width, seed)
    codes = np.empty((round_up(vocabulary, 32) // 32, width // 8, 32, 4), np.uint8)
    for first in range(0, vocabulary, ROWS_AT_A_TIME):
        some = codes_of(levels[first : first + ROWS_AT_A_TIME], dither)
        codes[first // 32 : first // 32 + len(some)] = some
    return HeadWeights(hidden, levels, scales, totals, codes, dither)


def quantise_table_rows(table: U16) -> tuple[I8, F32]:
    """Levels int8[n, W] and scales float32[n] of some rows uint16[n, H].  `KernelInputError`: one is not finite."""
    x = (table.astype(np.uint32) << np.uint32(16)).view(np.float32)
    top = np.maximum(np.abs(x).max(axis=1), _SMALLEST)
    if not np.isfinite(top).all():
        raise KernelInputError("table must be finite")
    levels = np.zeros((len(x), round_up(x.shape[1], 64)), np.int8)
    levels[:, : x.shape[1]] = np.rint(x * (np.float32(127) / top)[:, None])
    return levels, top / np.float32(127)


def draw_dither(width: int, seed: int = 0) -> U8:
    """Dither uint8[width]."""
    return np.random.default_rng(seed).integers(0, CODE_STEP, width).astype(np.uint8)


def codes_of(levels: I8, dither: U8) -> U8:
    """Codes of some whole tiles of rows int8[n, W], the last one filled up: uint8[tiles, W / 8, 32, 4]."""
    rows, width = levels.shape
    code = np.zeros((round_up(rows, 32), width), np.uint8)
    code[:rows] = (levels.astype(np.int16) + (dither + np.uint8(127))) // CODE_STEP
    cells = code.reshape(-1, 32, width // 8, 2, 4)
    return np.ascontiguousarray((cells[..., 0, :] | cells[..., 1, :] << 4).transpose(0, 2, 1, 3))
