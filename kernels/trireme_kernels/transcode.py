"""From the bytes of one packed layout to those of the other, without unpacking: what a stage does when it starts.

Both layouts keep the weights k = j, j + 4, j + 8 .. of a row in the same byte of consecutive blocks of 128 bytes
(`packing.py`): 4 weights a block in "2bit", 5 in "1.6bit".  So, byte by byte of a block, 20 weights are

    4 blocks of 1.6bit, each looked up as 5 codes of 2 bits   =   40 bits   =   5 blocks of 2bit

in both directions.  Blocks that one side lacks at the end of a tile are padding, weight 0.
"""

import numpy as np

from trireme_kernels.arrays import I64, U8
from trireme_kernels.jit import kernel

_BLOCK = 128
_DIGITS = [[n // 3**f % 3 for f in range(5)] for n in range(243)]
_WRONG = 1 << 10
"""An entry for a byte that stands for no weights; others are below."""
_BITS_OF_BYTE = np.array([sum(d << 2 * f for f, d in enumerate(digits)) for digits in _DIGITS] + [_WRONG] * 13)
_BYTE_OF_BITS = np.zeros(_WRONG, np.uint8)
_BYTE_OF_BITS[_BITS_OF_BYTE[:243]] = np.arange(243)
_FIELDS = np.array([_WRONG if n & n >> 1 & 0x55 else n for n in range(256)])
_SAME = np.arange(256).astype(np.uint8)
_ZEROS = 0x155
"""Five weights 0 as codes of 2 bits."""


def transcode(data: U8, layout: str, out: U8, tiles: int) -> bool:
    """Write `tiles` tiles of packed weights of a layout to `out` in the other one; False for impossible bytes.

    Padding must be weight 0, as `pack` makes it.
    """
    if layout == "1.6bit":
        return _transcode(data, _BITS_OF_BYTE, 5, out, _SAME, 4, tiles)
    return _transcode(data, _FIELDS, 4, out, _BYTE_OF_BITS, 5, tiles)


@kernel
def _transcode(data: U8, entries: I64, fields: int, out: U8, codes: U8, out_fields: int, tiles: int) -> bool:
    """A byte has `fields` weights, and so a group of 20 weights has 20 / fields blocks; likewise for `out`."""
    blocks, out_blocks = data.size // (tiles * _BLOCK), out.size // (tiles * _BLOCK)
    group, out_group = 20 // fields, 20 // out_fields
    mask, zeros, seen = (1 << 2 * out_fields) - 1, _ZEROS >> 2 * (5 - fields), 0
    for tile in range(tiles):
        for first in range(0, blocks, group):
            bits = np.zeros(_BLOCK, np.int64)
            for b in range(group):
                shift, at = 2 * fields * b, (tile * blocks + first + b) * _BLOCK
                for i in range(_BLOCK):
                    entry = entries[data[at + i]] if first + b < blocks else zeros
                    seen |= entry
                    bits[i] |= entry << shift
            for b in range(out_group):
                block = first // group * out_group + b
                if block < out_blocks:
                    at = (tile * out_blocks + block) * _BLOCK
                    for i in range(_BLOCK):
                        out[at + i] = codes[bits[i] >> 2 * out_fields * b & mask]
    return seen < _WRONG
