"""A Hugging Face checkpoint on the disk: one safetensors file, or shards with an index.

Owns where a tensor's bytes are and which tensors were asked for. Never loads pickled weights. Raises
CheckpointUnsupported, naming files relative to the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_proto.errors import CheckpointUnsupported
from trireme_proto.limits import LIMITS
from trireme_worker.pack.files import place
from trireme_worker.pack.jsontext import Fields, Malformed, parse_object, shown
from trireme_worker.pack.safetensors_file import Placed, read_header

SINGLE_FILE, INDEX_FILE, CONFIG_FILE = "model.safetensors", "model.safetensors.index.json", "config.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")
FLOATS = ("BF16", "F16", "F32")
_CHUNK_VALUES = 1 << 22


class Checkpoint:
    """The tensors of the checkpoint in `root`, mapped; `taken_bytes` of `total_bytes` have been handed out."""

    def __init__(self, root: Path) -> None:
        self._root = root
        if not _is_file(root / CONFIG_FILE):
            raise CheckpointUnsupported(f"there is no Hugging Face checkpoint at {place(root)}: no {CONFIG_FILE} there")
        self.tensors: dict[str, Placed] = {}
        self._maps: dict[str, NDArray[np.uint8]] = {}
        self._shard_of: dict[str, str] = {}
        for shard in self._shards():
            self._map(shard)
        self.total_bytes = sum(tensor.end - tensor.begin for tensor in self.tensors.values())
        self._taken: set[str] = set()

    @property
    def taken_bytes(self) -> int:
        """Bytes of the tensors that were asked for so far."""
        return sum(self.tensors[name].end - self.tensors[name].begin for name in self._taken)

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file of the checkpoint."""
        try:
            return parse_object(self._bytes(name, LIMITS.manifest_bytes + 1))
        except Malformed as fault:
            raise CheckpointUnsupported(f"{name}: {fault}") from fault

    def file(self, name: str) -> bytes | None:
        """The bytes of a file beside the weights, or None where there is none."""
        return self._bytes(name, -1) if _is_file(self._root / name) else None

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, mapped."""
        tensor = self.tensors[name]
        self._taken.add(name)
        return self._maps[self._shard_of[name]][tensor.begin : tensor.end].view(np.ndarray)

    def float_chunks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The rows of a float tensor (BF16, F16 or F32) as float32 [n, ...], some at a time. Values must be finite."""
        tensor, raw = self.tensors[name], self.raw(name)
        values = raw.view({"BF16": np.uint16, "F16": np.float16, "F32": np.float32}[tensor.dtype]).reshape(
            tensor.shape or 1
        )
        rows = max(1, _CHUNK_VALUES * len(values) // max(1, values.size))
        for begin in range(0, len(values), rows):
            chunk = values[begin : begin + rows]
            chunk = (
                (chunk.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else chunk.astype(np.float32)
            )
            if not np.isfinite(chunk).all():
                raise CheckpointUnsupported(f"{name} holds values that are not finite numbers")
            yield chunk

    def floats(self, name: str) -> NDArray[np.float32]:
        """A whole float tensor as float32."""
        return np.concatenate(list(self.float_chunks(name)))

    def _shards(self) -> list[str]:
        if _is_file(self._root / INDEX_FILE):
            return sorted(_shard_names(self.json(INDEX_FILE)))
        if _is_file(self._root / SINGLE_FILE):
            return [SINGLE_FILE]
        pickled = next((name for name in _PICKLED if (self._root / name).exists()), None)
        if pickled:
            raise CheckpointUnsupported(
                f"{pickled} holds pickled weights, which are never loaded: save them as safetensors"
            )
        raise CheckpointUnsupported(f"neither {SINGLE_FILE} nor {INDEX_FILE} is there")

    def _map(self, shard: str) -> None:
        try:
            with (self._root / shard).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                placed = read_header(file, size)
                self._maps[shard] = np.memmap(file, np.uint8, "r")
        except Malformed as fault:
            raise CheckpointUnsupported(f"{shard}: {fault}") from fault
        except (OSError, ValueError) as fault:
            raise CheckpointUnsupported(f"{shard}: is missing or cannot be read") from fault
        for name in placed:
            if name in self.tensors:
                raise CheckpointUnsupported(f"{shard}: {shown(name)} is in {self._shard_of[name]} as well")
            self._shard_of[name] = shard
        self.tensors |= placed

    def _bytes(self, name: str, limit: int) -> bytes:
        try:
            with (self._root / name).open("rb") as file:
                return file.read(limit)
        except OSError as fault:
            raise CheckpointUnsupported(f"{name}: is missing or cannot be read") from fault


def _shard_names(index: Mapping[str, Any]) -> set[str]:
    """The files that an index names: plain names, inside the checkpoint's folder."""
    try:
        fields = Fields(index).fields("weight_map")
        return {fields.text(name, _is_plain, "a plain file name ending in .safetensors") for name in fields.names()}
    except Malformed as fault:
        raise CheckpointUnsupported(f"{INDEX_FILE}: {fault}") from fault


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be looked into
        return False


def _is_plain(name: str) -> bool:
    return name.endswith(".safetensors") and not set(name) & set("/\\\0") and not name.startswith(".")
