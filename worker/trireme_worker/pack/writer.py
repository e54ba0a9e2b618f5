"""Writes a pack, layer by layer, into a folder that appears under its name only when it is complete.

Owns the order on the disk and the cleaning up: a conversion that breaks off leaves nothing behind. Memory is that of
one layer, because layers come from an iterable and tables in chunks.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trireme_proto.errors import ConfigurationError
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.files import place
from trireme_worker.pack.manifest import EXTRA_FILES, MANIFEST_FILE, FileEntry, GenerationDefaults, Manifest
from trireme_worker.pack.quantised_head import QuantisedHead
from trireme_worker.pack.reader import Bits
from trireme_worker.pack.safetensors_file import write_file
from trireme_worker.pack.tensors import EMBEDDING_FILE, HEAD_FILE, TensorSpec, file_tensors, layer_file
from trireme_worker.pack.weights import Float, LayerWeights


@dataclass(frozen=True)
class PackContents:
    """Everything that goes into a pack. Iterables are gone through once, in the order embedding, layers, head."""

    config: ModelConfig
    embedding: Iterable[Bits]
    """Rows of the table, in chunks: uint16 [n, hidden_size] each."""
    layers: Iterable[LayerWeights]
    final_norm: Float
    head: Iterable[Bits] | None = None
    """As `embedding`; None where the head is tied to it, or quantised."""
    layout: str = "2bit"
    """Layout of the layers' matrices."""
    quantised_head: QuantisedHead | None = None
    """The head in integers; then `head` is None."""
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)
    extra_files: Mapping[str, bytes] = field(default_factory=dict)
    """tokenizer.json, and what else of `EXTRA_FILES` there is."""


def write_pack(path: Path, contents: PackContents) -> Manifest:
    """Makes the pack `path`. ConfigurationError: there is something at `path` already, or it cannot be written."""
    check_destination(path)
    try:
        with _appearing(path) as folder:
            return _Writer(folder, contents).write()
    except OSError as fault:
        raise _cannot_write(path, fault) from fault


def check_destination(path: Path) -> None:
    """ConfigurationError unless a pack can be made at `path`: nothing there, or an empty folder that nobody is in."""
    try:
        empty = path.is_dir() and not any(path.iterdir()) and path.resolve() != Path.cwd()
        free = not path.is_symlink() and (empty or not path.exists())
    except OSError as fault:
        raise _cannot_write(path, fault) from fault
    if not free:
        raise ConfigurationError(f"{place(path)} exists already: name a folder that does not")
    if not (above := next(each for each in path.absolute().parents if each.exists())).is_dir():
        raise ConfigurationError(f"{place(path)} cannot be made: {place(above)} is a file, not a folder")


def _cannot_write(path: Path, fault: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot write the pack {place(path)}: {fault.strerror or 'input/output error'}")


class _Writer:
    def __init__(self, folder: Path, contents: PackContents) -> None:
        self._folder, self._contents = folder, contents
        head = contents.quantised_head
        self._head_kind = "bf16" if head is None else head.kind
        self._specs = file_tensors(contents.config, contents.layout, self._head_kind)
        self._files: dict[str, FileEntry] = {}

    def write(self) -> Manifest:
        contents = self._contents
        self._tensors(EMBEDDING_FILE, {"embedding": contents.embedding})
        self._layers()
        self._tensors(HEAD_FILE, _head_tensors(contents) | {"final_norm": [contents.final_norm]})
        for name in (name for name in EXTRA_FILES if name in contents.extra_files):
            (self._folder / name).write_bytes(contents.extra_files[name])
            self._enter(name, {})
        files = dict(sorted(self._files.items()))
        manifest = Manifest(contents.config, contents.generation, files, contents.layout, self._head_kind)
        Manifest.from_json(manifest.to_json())  # what is written is readable, or nothing is written
        text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n"
        (self._folder / MANIFEST_FILE).write_text(text, "utf-8")
        return manifest

    def _layers(self) -> None:
        (self._folder / "layers").mkdir()
        config, written = self._contents.config, 0
        for written, layer in enumerate(self._contents.layers, 1):  # the count after the last
            arrays = layer.arrays(config)
            self._tensors(layer_file(written - 1), {name: [array] for name, array in arrays.items()})
        if written != config.layers:
            raise ValueError(f"{written} layers were given, the configuration says {config.layers}")

    def _tensors(self, name: str, data: Mapping[str, Iterable[NDArray[Any]]]) -> None:
        if set(data) != set(self._specs[name]):
            raise ValueError(f"{name} holds {sorted(self._specs[name])}, not {sorted(data)}")
        write_file(self._folder / name, self._specs[name], data)
        self._enter(name, self._specs[name])

    def _enter(self, name: str, tensors: Mapping[str, TensorSpec]) -> None:
        path = self._folder / name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._files[name] = FileEntry(digest, path.stat().st_size, tensors)


def _head_tensors(contents: PackContents) -> dict[str, Iterable[NDArray[Any]]]:
    if contents.quantised_head is not None:
        return contents.quantised_head.tensors()
    return {} if contents.head is None else {"head": contents.head}


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that gets its name at the end, or vanishes on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    folder.mkdir()
    try:
        yield folder
        folder.rename(path)  # over an empty folder, too
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already after the rename
