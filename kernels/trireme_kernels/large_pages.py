"""Memory in large pages, where the system has them: weights are read once a token, and far more of them than small
pages can be looked up for.

Reading pages of 4 KiB in turn takes up to twice the time of reading pages of 2 MiB (on a virtual machine, where each
look-up is two).  Linux gives large pages to anonymous memory and to the cache of files when it is asked to, as far as
it has them; nothing here fails where it has none, and no value depends on it.
"""

import mmap
import os
from typing import IO

import numpy as np

from trireme_kernels.arrays import U8, require, round_up

_LINE = 64
LARGE = 1 << 21
"""Bytes of a large page on x86-64, and on ARM with small pages of 4 KiB."""
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)
_ANONYMOUS = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)


def large_empty(size: int) -> U8:
    """Zeros uint8[size] that begin at a large page, or at a cache line where they are few.

    Memory is taken as it is written.  Raises `KernelInputError`.
    """
    require("size", isinstance(size, int | np.integer) and size >= 0, "must be an int, not negative")
    if _ADVICE is None or size < LARGE:
        return _from(np.zeros(size + _LINE, np.uint8), _LINE, size)
    memory = mmap.mmap(-1, round_up(size, LARGE) + LARGE, flags=_ANONYMOUS)
    memory.madvise(_ADVICE)
    return _from(np.frombuffer(memory, np.uint8), LARGE, size)


def _from(memory: U8, boundary: int, size: int) -> U8:
    start = -memory.ctypes.data % boundary
    return memory[start : start + size]


def map_file(file: IO[bytes]) -> U8:
    """The bytes of an open file, mapped read-only; they stay mapped as long as the array or a part of it lives."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return np.empty(0, np.uint8)
    memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    if _ADVICE is not None:
        memory.madvise(_ADVICE)
    return np.frombuffer(memory, np.uint8)
