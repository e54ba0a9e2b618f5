"""How the keys and values of one layer lie in its pages: one description for every type.

    pages   uint8[P, KV, head_bytes]      a page holds 16 positions; W = head_dim rounded up to 32, padded with zeros

    float32 and float16, one head of a page                       128 W, 64 W bytes
        keys      [W][16]               element, position         16 positions are one vector: no sums within vectors
        values    [16][W]               position, element
    int8, one head of a page                                      32 W + 128 bytes
        keys      uint8[W/4][16][4]     level + 127; a cell of 64 bytes is 16 positions x 4 elements
        values    int8[W/16][4][16][4]  a cell is 16 elements x 4 positions, four cells in a row are the page's 16
        scales    float32[2][16]        of the keys, of the values; one for each position

    levels of a row x:  a = max(largest |x|, 1e-30);  level = round_half_even(x * fl(127 / a));  scale = fl(a / 127)

Pages belong to one process: the layout serves its kernels and is not a file format.  No arithmetic here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import ANY, U8, frozen, require, require_array, require_output, round_up
from trireme_kernels.large_pages import large_empty

PAGE_TOKENS = 16
"""Positions in a page."""
AHEAD_PAGES = 8
"""How far ahead of their use pages are asked for: memory is a few hundred nanoseconds away."""
KV_DTYPES = ("float32", "float16", "int8")
_SCALE_BYTES = 2 * PAGE_TOKENS * 4
_LIKE = {
    name: frozen(np.empty(0, kind)) for name, kind in zip(KV_DTYPES, (np.float32, np.uint16, np.int8), strict=True)
}


class Pages(NamedTuple):
    """The pages of one layer inside compiled code."""

    address: int
    kv_heads: int
    head_dim: int
    width: int
    """head_dim with padding."""
    head_bytes: int
    value_bytes: int
    """Bytes of a head of a page before its values."""
    like: npt.NDArray[Any]
    """Empty; its element type says how numbers are stored (halves as uint16): each is another compilation."""


@dataclass(frozen=True, slots=True)
class KvFormat:
    """Storage of the keys and values of one layer.

    kv_heads  heads of the keys
    head_dim  elements of a head
    dtype     "float32": as computed; "float16": half the bytes; "int8": a quarter, one scale for each token and head

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
    def like(self) -> npt.NDArray[Any]:
        """An empty array of the stored type, for compiled code."""
        return _LIKE[self.dtype]

    @property
    def head_bytes(self) -> int:
        """Bytes of one head in a page."""
        return 2 * self._part_bytes + (_SCALE_BYTES if self.dtype == "int8" else 0)

    @property
    def _part_bytes(self) -> int:
        return PAGE_TOKENS * self.width * self.like.itemsize

    @property
    def page_bytes(self) -> int:
        """Bytes of a page: 16 positions of all heads, keys and values."""
        return self.kv_heads * self.head_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes that a token takes in this layer."""
        return self.page_bytes // PAGE_TOKENS

    def empty(self, pages: int) -> U8:
        """Room for pages, uint8[pages, kv_heads, head_bytes] from a cache line on; memory is taken as it is filled."""
        return large_empty(pages * self.page_bytes).reshape(pages, self.kv_heads, self.head_bytes)

    def check(self, pages: U8, *, written: bool) -> None:
        """`KernelInputError` unless these are pages of this format."""
        check = require_output if written else require_array
        check("pages", pages, np.uint8, (ANY, self.kv_heads, self.head_bytes))
        require("pages", pages.ctypes.data % 4 == 0, "must be aligned to 4 bytes")

    def compiled(self, pages: U8) -> Pages:
        """For compiled code, which does not keep them alive."""
        sizes = (self.kv_heads, self.head_dim, self.width, self.head_bytes, self._part_bytes)
        return Pages(pages.ctypes.data, *sizes, self.like)
