"""From one packed layout to the other: the bytes that `pack` makes, for every width, and no impossible byte."""

import numpy as np
import pytest

import trireme_kernels as k
from trireme_kernels.packing import LAYOUTS


@pytest.mark.parametrize(("old", "new"), [("2bit", "1.6bit"), ("1.6bit", "2bit")])
def test_every_width_up_to_three_groups(old: str, new: str) -> None:
    rng = np.random.default_rng(1)
    for cols in range(1, 245):
        w = rng.integers(-1, 2, (40, cols)).astype(np.int8)
        matrix = k.PackedMatrix(k.pack(w, old), np.ones(4, np.float32), 40, cols, old)
        assert (k.relayout(matrix, new).data == k.pack(w, new)).all()


@pytest.mark.parametrize(("layout", "byte"), [*((("1.6bit"), n) for n in range(243, 256)), ("2bit", 3), ("2bit", 0xC0)])
@pytest.mark.parametrize("at", [0, 129, -1])
def test_bytes_that_stand_for_no_weights_are_refused(layout: str, byte: int, at: int) -> None:
    data = k.pack(np.zeros((64, 100), np.int8), layout)
    data[at] = byte
    matrix = k.PackedMatrix(data, np.ones(4, np.float32), 64, 100, layout)
    other = next(name for name in LAYOUTS if name != layout)
    with pytest.raises(k.KernelInputError, match="matrix must not hold bytes"):
        k.relayout(matrix, other)
