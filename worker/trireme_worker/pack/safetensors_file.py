"""Safetensors files: an 8-byte little-endian length, that many bytes of JSON, then the tensors' bytes.

Owns the check of a header before anything of it is believed, and the writing of files whose matrices are aligned. Sizes
are Python integers, which do not overflow. Format: https://github.com/huggingface/safetensors (format section).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trireme_proto.limits import LIMITS
from trireme_worker.pack.jsontext import Fields, Malformed, parse_object, shown
from trireme_worker.pack.tensors import TensorSpec

ALIGNMENT = 64
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 8
_MAX_OFFSET = 1 << 53
_WIDTHS = {
    1: "BOOL U8 I8 F8_E4M3 F8_E5M2",
    2: "I16 U16 F16 BF16",
    4: "I32 U32 F32",
    8: "I64 U64 F64",
}  # bytes: the dtypes of that width
_DTYPE_BYTES = {dtype: width for width, dtypes in _WIDTHS.items() for dtype in dtypes.split()}


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor in a file: bytes [begin, end) counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: IO[bytes], size: int) -> dict[str, Placed]:
    """Tensors of an open safetensors file of `size` bytes, by name.

    Malformed: a header that is cut off, too long or not JSON; a tensor whose bytes do not fit its shape, overlap
    another's, leave a gap or end elsewhere than the file. Others' files may be unaligned; packs are checked for that.
    """
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > LIMITS.manifest_bytes or _LENGTH_BYTES + length > size:
        raise Malformed(f"announces a header of {length} bytes in a file of {size}")
    header = parse_object(file.read(length))
    header.pop("__metadata__", None)
    start = _LENGTH_BYTES + length
    tensors = {name: _placed(name, value, start) for name, value in header.items()}
    _check_cover(tensors, start, size)
    return tensors


def write_file(path: Path, tensors: Mapping[str, TensorSpec], data: Mapping[str, Iterable[NDArray[Any]]]) -> None:
    """Writes `tensors` in their order; `data` gives each one's values as arrays that follow each other.

    ValueError: the arrays of a tensor are more or fewer bytes than its shape says.
    """
    with path.open("xb") as file:
        file.write(_header(tensors))
        for name, spec in tensors.items():
            written = 0
            for chunk in data[name]:
                written += file.write(np.ascontiguousarray(chunk).view(np.uint8).data)
            if written != spec.nbytes:
                raise ValueError(f"{name} has {written} bytes, its shape says {spec.nbytes}")


def _placed(name: str, value: object, start: int) -> Placed:
    fields = Fields(value, f"{shown(name)[1:-1]}.")
    dtype = fields.text("dtype", _DTYPE_BYTES.__contains__, "a safetensors dtype")
    shape = fields.integers("shape", 0, _MAX_OFFSET, _MAX_DIMENSIONS)
    offsets = fields.integers("data_offsets", 0, _MAX_OFFSET, 2)
    fields.finish()
    begin, end = offsets if len(offsets) == 2 else (0, -1)
    if end - begin != math.prod(shape) * _DTYPE_BYTES[dtype]:
        raise Malformed(f"{shown(name)}: bytes {list(offsets)} do not fit {dtype} {list(shape)}")
    return Placed(dtype, shape, start + begin, start + end)


def _check_cover(tensors: Mapping[str, Placed], start: int, size: int) -> None:
    """The tensors must follow each other without gap or overlap, from the header to the file's end."""
    at = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            raise Malformed(f"{shown(name)} begins at byte {tensor.begin}, the one before it ends at {at}")
        at = tensor.end
    if at != size:
        raise Malformed(f"is {size} bytes long, its tensors end at {at}")


def _header(tensors: Mapping[str, TensorSpec]) -> bytes:
    """Length and JSON, padded with spaces so that the first tensor is aligned."""
    entries, at = {}, 0
    for name, spec in tensors.items():
        entries[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [at, at + spec.nbytes]}
        at += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text
