"""A packed ternary matrix: weights and scales as they lie in a file, and the change from one layout to the other."""

from dataclasses import dataclass

import numpy as np

from trireme_kernels.arrays import F32, U8, frozen, require, require_array, require_output, round_up
from trireme_kernels.large_pages import large_empty
from trireme_kernels.packing import SCALE_ROWS, TILE_ROWS, block_cols, packed_bytes
from trireme_kernels.transcode import transcode

MAX_COLS = 1 << 17
"""Sums of int8 times ternary stay below 2**24 up to here, so that their conversion to float32 is exact."""


@dataclass(frozen=True, eq=False, slots=True)
class PackedMatrix:
    """A ternary matrix of `rows` x `cols` weights with one float32 scale for each 16 rows.

    data    uint8[packed_bytes(rows, cols, layout)], as drawn in `packing.py`; may be a read-only memory map
    scales  float32[padded_rows / 16], multiplied to the sums of 16 rows each
    rows    logical number of outputs (N), without padding
    cols    logical number of inputs (K), without padding; at most 2**17
    layout  "2bit" or "1.6bit"

    One scale for 16 rows serves scales per tensor, per row group and of fused tensors.  (Scales per group of k would be
    a second axis, float32[padded_rows / 16, groups]; nothing here depends on there being none.)  Both arrays are kept
    as read-only views without a copy.  Raises `KernelInputError` when sizes do not fit.
    """

    data: U8
    scales: F32
    rows: int
    cols: int
    layout: str = "2bit"

    def __post_init__(self) -> None:
        """Check sizes with Python's integers, which do not overflow."""
        block_cols(self.layout)
        require("rows", isinstance(self.rows, int) and self.rows > 0, "must be a positive int")
        require("cols", isinstance(self.cols, int) and 0 < self.cols <= MAX_COLS, f"must be an int in 1..{MAX_COLS}")
        require_array("data", self.data, np.uint8, (packed_bytes(self.rows, self.cols, self.layout),))
        require_array("scales", self.scales, np.float32, (self.padded_rows // SCALE_ROWS,))
        object.__setattr__(self, "data", frozen(self.data))
        object.__setattr__(self, "scales", frozen(self.scales))

    @property
    def padded_rows(self) -> int:
        """Rows with padding: the next multiple of 32, and the width of `ternary_linear`'s output."""
        return round_up(self.rows, TILE_ROWS)

    @property
    def blocks(self) -> int:
        """Blocks of a tile."""
        return -(-self.cols // block_cols(self.layout))

    @property
    def padded_cols(self) -> int:
        """Columns with padding to whole blocks, and the width of the quantised input."""
        return self.blocks * block_cols(self.layout)

    @property
    def tiles(self) -> int:
        """Tiles of 32 rows, the unit of `begin` and `end` in `ternary_linear`."""
        return self.padded_rows // TILE_ROWS

    @property
    def nbytes(self) -> int:
        """Bytes of weights and scales together."""
        return self.data.nbytes + self.scales.nbytes


def relayout(matrix: PackedMatrix, layout: str, data: U8 | None = None) -> PackedMatrix:
    """The same matrix in a layout, "2bit" or "1.6bit"; itself where it has it already.

    The scales are shared, the weights go to `data`, uint8[packed_bytes(rows, cols, layout)], by default a new array.
    Raises `KernelInputError`, also for impossible bytes.
    """
    if layout == matrix.layout:
        return matrix
    size = packed_bytes(matrix.rows, matrix.cols, layout)
    data = large_empty(size) if data is None else data
    require_output("data", data, np.uint8, (size,))
    right = transcode(matrix.data, matrix.layout, data, matrix.tiles)
    require("matrix", right, "must not hold bytes that stand for no weights")
    return PackedMatrix(data, matrix.scales, matrix.rows, matrix.cols, layout)
