"""How the keys and values of one layer lie in its pages: one description for float32, float16 and int8.

    pages   uint8[P, KV, head_bytes]      a page holds 16 positions; W = head_dim rounded up to 32, padded with zeros

    float16 and float32, one head of a page                       64 W and 128 W bytes
        keys      number[W][16]         element, position         16 positions are one vector: no sums within vectors
        values    number[16][W]         position, element
    int8, one head of a page                                      32 W + 128 bytes
        keys      uint8[W/4][16][4]     level + 127; a cell of 64 bytes is 16 positions x 4 elements
        values    int8[W/16][4][16][4]  a cell is 16 elements x 4 positions, four cells in a row are the page's 16
        scales    float32[2][16]        of the keys, of the values; one for each position

    levels of a row x:  a = max(largest |x|, 1e-30);  level = round_half_even(x * fl(127 / a));  scale = fl(a / 127)

Pages belong to one process: the layout serves its kernels and is not a file format.  No arithmetic here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trireme_kernels.arrays import ANY, U8, require, require_array, require_output, round_up

PAGE_TOKENS = 16
"""Positions in a page."""
AHEAD_PAGES = 8
"""How far ahead of their use pages are asked for: memory is a few hundred nanoseconds away."""
KV_DTYPES = ("float32", "float16", "int8")
SCALE_BYTES = 2 * PAGE_TOKENS * 4


class Pages(NamedTuple):
    """The pages of one layer inside compiled code."""

    address: int
    kv_heads: int
    head_dim: int
    width: int
    """head_dim with padding."""
    item: int
    """Bytes of an element: 4 float32, 2 float16, 1 int8."""


@dataclass(frozen=True, slots=True)
class KvFormat:
    """Storage of the keys and values of one layer.

    kv_heads  heads of the keys
    head_dim  elements of a head
    dtype     "float32" as computed, "float16" rounded, or "int8" with one scale for each token and head

    Raises `KernelInputError`.
    """

    kv_heads: int
    head_dim: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check what the drawing relies on."""
        require("kv_heads", self.kv_heads > 0, "must be positive")
        require("head_dim", 0 < self.head_dim <= 1024, "must lie in 1..1024")
        require("dtype", self.dtype in KV_DTYPES, f"must be one of {', '.join(KV_DTYPES)}")

    @property
    def width(self) -> int:
        """Elements of a head with padding."""
        return round_up(self.head_dim, 32)

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return {"float32": 4, "float16": 2, "int8": 1}[self.dtype]

    @property
    def head_bytes(self) -> int:
        """Bytes of one head in a page."""
        return 32 * self.width * self.item + (SCALE_BYTES if self.dtype == "int8" else 0)

    @property
    def page_bytes(self) -> int:
        """Bytes of a page: 16 positions of all heads, keys and values."""
        return self.kv_heads * self.head_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes that a token takes in this layer."""
        return self.page_bytes // PAGE_TOKENS

    def empty(self, pages: int) -> U8:
        """Room for so many pages, uint8[pages, kv_heads, head_bytes] from a cache line on; memory is taken as it is
        filled.
        """
        size = pages * self.page_bytes
        raw = np.zeros(size + 63, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + size].reshape(pages, self.kv_heads, self.head_bytes)

    def check(self, pages: U8, *, written: bool) -> None:
        """`KernelInputError` unless these are pages of this format."""
        check = require_output if written else require_array
        check("pages", pages, np.uint8, (ANY, self.kv_heads, self.head_bytes))

    def compiled(self, address: int) -> Pages:
        """For compiled code: pages that begin at an address."""
        return Pages(address, self.kv_heads, self.head_dim, self.width, self.item)
