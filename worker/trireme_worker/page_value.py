"""What a KV page is called outside its process, and what it looks like there. Pure: bytes in, bytes out.

The coordinator names a page by a keyed hash of all token ids up to its end; only it knows the tenant's secret. A stage
adds what its own pages depend on: pack, layers, type, page size, version of this file. Equal names are equal bytes.

    value   "TKV1" | length of the pages, uint32 | CRC-32 of name and pages, uint32 | 4 zero bytes | pages
    pages   of the stage's layers in order, each as in trireme_kernels.kv_format

What comes back from a store is data to be checked: anything else than the value that was written is None.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trireme_kernels import PAGE_TOKENS

KEY_BYTES = 32
_HEADER = struct.Struct("<4sII4x")
HEADER_BYTES = _HEADER.size
_MAGIC = b"TKV1"
_LAYOUT = 1
"""Of the pages: to be raised with every change of trireme_kernels.kv_format or of how keys and values are computed."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PageIdentity:
    """What the keys and values of a stage depend on, besides the tokens."""

    pack_sha256: str
    first_layer: int
    end_layer: int
    kv_dtype: str

    @property
    def stage(self) -> bytes:
        """The name of all that, 32 bytes."""
        parts = self.pack_sha256, self.first_layer, self.end_layer, self.kv_dtype, PAGE_TOKENS, _LAYOUT, sys.byteorder
        return hashlib.blake2b(repr(parts).encode(), digest_size=KEY_BYTES).digest()

    def name(self, key: bytes) -> str:
        """Of the page that the coordinator calls `key` (32 bytes); 64 hexadecimal digits."""
        return hashlib.blake2b(key, key=self.stage, digest_size=KEY_BYTES).hexdigest()


def blank(page_bytes: int) -> Bytes:
    """Room for a value, uint8 [16 + page_bytes]; the pages come behind the first 16 bytes."""
    return np.empty(HEADER_BYTES + page_bytes, np.uint8)


def seal(name: str, value: Bytes) -> None:
    """Writes the header of a value whose pages are there."""
    pages = value[HEADER_BYTES:]
    value[:HEADER_BYTES] = np.frombuffer(_HEADER.pack(_MAGIC, len(pages), _checksum(name, pages)), np.uint8)


def opened(name: str, value: bytes, page_bytes: int) -> Bytes | None:
    """The pages of a value, uint8 [page_bytes], not copied; None where it is not what `seal` made for this name."""
    if len(value) != HEADER_BYTES + page_bytes:
        return None
    pages = np.frombuffer(value, np.uint8, offset=HEADER_BYTES)
    if value[:HEADER_BYTES] != _HEADER.pack(_MAGIC, page_bytes, _checksum(name, pages)):
        return None
    return pages


def _checksum(name: str, pages: Bytes) -> int:
    return zlib.crc32(pages.data, zlib.crc32(name.encode()))
