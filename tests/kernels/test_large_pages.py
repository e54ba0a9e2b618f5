"""Memory in large pages is memory: zeros, aligned, writable; a mapped file has its bytes and outlives its handle."""

import numpy as np
import pytest

from trireme_kernels.errors import KernelInputError
from trireme_kernels.large_pages import LARGE, large_empty, map_file


@pytest.mark.parametrize(("size", "boundary"), [(1, 64), (LARGE - 1, 64), (LARGE, LARGE), (3 * LARGE + 5, LARGE)])
def test_memory_is_zeros_from_a_boundary_on(size, boundary):
    memory = large_empty(size)
    assert memory.shape == (size,)
    assert memory.dtype == np.uint8
    assert not memory.any()
    assert memory.ctypes.data % boundary == 0
    memory[:] = 7
    assert (memory == 7).all()


@pytest.mark.parametrize("size", [-1, 1.5, None, "3"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(KernelInputError, match="size"):
        large_empty(size)


@pytest.mark.parametrize("size", [1, 5000, 2 * LARGE + 3])
def test_a_mapped_file_has_its_bytes_and_outlives_the_handle(tmp_path, size):
    content = np.arange(size, dtype=np.uint32).astype(np.uint8)
    (tmp_path / "file").write_bytes(content.tobytes())
    with (tmp_path / "file").open("rb") as file:
        part = map_file(file)[size // 2 :]
    assert (part == content[size // 2 :]).all()
    assert not part.flags.writeable
