"""The files of a pack on the disk: opened under its root, checked against the manifest, hashed, mapped.

Owns what may be opened: regular files inside the root, of the size that the manifest says. A file is hashed before its
bytes are believed. Raises PackCorrupt, naming the file relative to the pack.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.large_pages import map_file
from trireme_proto.errors import PackCorrupt
from trireme_proto.limits import LIMITS
from trireme_worker.pack.jsontext import Malformed, parse_object
from trireme_worker.pack.manifest import MANIFEST_FILE, FileEntry, Manifest
from trireme_worker.pack.safetensors_file import Placed, read_header
from trireme_worker.pack.tensors import DTYPE_BYTES, TensorSpec

ProgressCallback = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
_CHUNK = 1 << 22


def ignore_progress(done: int, total: int) -> None:
    """A progress callback for callers that show none."""


class PackFiles:
    """Access to the files of the pack at `root`, by their names in `manifest`."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._root, self._entries = root, manifest.files
        self._verified: set[str] = set()

    def path(self, name: str) -> Path:
        """Where a listed file is."""
        return self._root / name

    def check_present(self, names: Iterable[str]) -> None:
        """Each file is there, a regular file inside the pack, and as long as the manifest says."""
        for name in names:
            with open_inside(self._root, name) as file:
                self._check_size(name, file)

    def verify(self, names: Iterable[str], progress: ProgressCallback) -> None:
        """Hashes the files that were not hashed yet."""
        todo = [name for name in names if name not in self._verified]
        total, done = sum(self._entries[name].size for name in todo), 0
        for name in todo:
            digest = hashlib.sha256()
            with open_inside(self._root, name) as file:
                self._check_size(name, file)
                for chunk in _chunks(file):
                    digest.update(chunk)
                    done += len(chunk)
                    progress(done, total)
            if digest.hexdigest() != self._entries[name].sha256:
                raise PackCorrupt(f"{name}: its SHA-256 is not the one that {MANIFEST_FILE} lists")
            self._verified.add(name)

    def tensors(self, name: str) -> dict[str, NDArray[np.uint8]]:
        """The bytes of each tensor of a safetensors file, mapped read-only."""
        expected = self._entries[name].tensors
        with open_inside(self._root, name) as file:
            size = self._check_size(name, file)
            try:
                placed = read_header(file, size)
                _check_tensors(expected, placed)
            except Malformed as fault:
                raise PackCorrupt(f"{name}: {fault}") from fault
            mapped = map_file(file)
        return {n: mapped[t.begin : t.end] for n, t in placed.items()}

    def _check_size(self, name: str, file: IO[bytes]) -> int:
        entry: FileEntry = self._entries[name]
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            raise PackCorrupt(f"{name}: is {size} bytes long, {MANIFEST_FILE} lists {entry.size}")
        return size


def _chunks(file: IO[bytes]) -> Iterator[memoryview]:
    """The bytes of a file in turn. Through a map: what is read from the disk by it comes to lie in large pages, where
    the weights' own map finds it; what `read` brings in does not.
    """
    mapped = map_file(file)
    return (mapped[at : at + _CHUNK].data for at in range(0, mapped.size, _CHUNK))


def place(path: Path) -> str:
    """A folder as messages show it: its name alone, not where it is."""
    return repr(path.name or str(path))


def open_inside(root: Path, name: str) -> IO[bytes]:
    """Opens a regular file under `root`. PackCorrupt: missing, unreadable, no file, a link that leads elsewhere."""
    try:
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root.resolve()):
            raise PackCorrupt(f"{name}: is a link that leads out of the pack")
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
            raise PackCorrupt(f"{name}: is not a file")
        return path.open("rb")
    except FileNotFoundError as fault:
        raise PackCorrupt(f"{name}: is missing") from fault
    except (OSError, RuntimeError) as fault:  # RuntimeError: links in a circle, before Python 3.13
        raise PackCorrupt(f"{name}: cannot be read ({_reason(fault)})") from fault


def read_manifest(root: Path) -> tuple[Manifest, str]:
    """The manifest and the SHA-256 of its bytes."""
    with open_inside(root, MANIFEST_FILE) as file:
        data = file.read(LIMITS.manifest_bytes + 1)
    try:
        return Manifest.from_json(parse_object(data)), hashlib.sha256(data).hexdigest()
    except Malformed as fault:
        raise PackCorrupt(f"{MANIFEST_FILE}: {fault}") from fault


def _check_tensors(expected: Mapping[str, TensorSpec], placed: dict[str, Placed]) -> None:
    if {name: TensorSpec(tensor.dtype, tensor.shape) for name, tensor in placed.items()} != expected:
        raise Malformed(f"holds other tensors than {MANIFEST_FILE} lists")
    for name, tensor in placed.items():
        if tensor.begin % DTYPE_BYTES[tensor.dtype]:  # kernels read them where they lie
            raise Malformed(f"{name} is not aligned to its dtype")


def _reason(fault: Exception) -> str:
    return (fault.strerror or "unreadable") if isinstance(fault, OSError) else "links in a circle"
