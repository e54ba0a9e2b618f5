"""trireme.json: what a pack holds, with the SHA-256 and size of every file. The one file that is read before any other.

Owns the manifest's fields and their checks, among them that no name leads out of the pack: only names that this version
knows are accepted, so `..`, absolute paths, backslashes and NUL cannot occur.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trireme_kernels.packing import LAYOUTS
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.jsontext import Fields, Malformed, shown
from trireme_worker.pack.tensors import DTYPE_BYTES, HEAD_KINDS, TensorSpec, file_tensors

MANIFEST_FILE = "trireme.json"
FORMAT, VERSION = "trireme-pack", 1
TOKENIZER_FILE = "tokenizer.json"
EXTRA_FILES = (
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
)
"""Files beside the weights that a pack may hold; the tokenizer must be there."""
_MAX_BYTES = 1 << 53
_MAX_DIMENSIONS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """How the model's makers sample from it; a request overrides each."""

    temperature: float = 0.0
    """[0, 100]; 0 is greedy."""
    top_k: int = 0
    """0 keeps all tokens."""
    top_p: float = 1.0
    """(0, 1]; 1 keeps all tokens."""

    @classmethod
    def take(cls, fields: Fields) -> GenerationDefaults:
        """Out of a manifest's object."""
        taken = cls(
            fields.number("temperature", 0.0, 100.0),
            fields.integer("top_k", 0, 1 << 31),
            fields.number("top_p", 1e-6, 1.0),
        )
        fields.finish()
        return taken


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the pack, by what it must be."""

    sha256: str
    size: int
    tensors: Mapping[str, TensorSpec]
    """Empty for what is no safetensors file."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of trireme.json."""

    config: ModelConfig
    generation: GenerationDefaults
    files: Mapping[str, FileEntry]
    layout: str
    """Of the ternary weights, one of `LAYOUTS`."""
    head: str
    """How the output head is stored, one of `HEAD_KINDS`."""

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Malformed names the first field that is missing, unknown, wrong or in contradiction to another."""
        fields = Fields(value)
        fields.choice("format", (FORMAT,))
        if (version := fields.integer("version", 1, 1 << 31)) != VERSION:
            raise Malformed(f"is of pack version {version}, this program reads version {VERSION}")
        config = ModelConfig.from_json(fields.take("config"))
        quantisation = fields.fields("quantisation")
        layout, head = quantisation.choice("layout", LAYOUTS), quantisation.choice("head", HEAD_KINDS)
        quantisation.finish()
        generation = GenerationDefaults.take(fields.fields("generation"))
        listed = fields.fields("files")
        files = {name: _file(name, listed.fields(name)) for name in listed.names()}
        fields.finish()
        _check_files(file_tensors(config, layout, head), files)
        return cls(config, generation, files, layout, head)

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "config": self.config.to_json(),
            "quantisation": {"layout": self.layout, "head": self.head},
            "generation": asdict(self.generation),
            "files": {name: _entry(entry) for name, entry in self.files.items()},
        }


def _entry(entry: FileEntry) -> dict[str, Any]:
    value: dict[str, Any] = {"sha256": entry.sha256, "bytes": entry.size}
    if entry.tensors:
        value["tensors"] = {n: {"dtype": t.dtype, "shape": list(t.shape)} for n, t in entry.tensors.items()}
    return value


def _file(name: str, fields: Fields) -> FileEntry:
    sha256 = fields.text("sha256", lambda text: bool(_SHA256.match(text)), "64 hexadecimal digits")
    size = fields.integer("bytes", 0, _MAX_BYTES)
    tensors = {}
    if name.endswith(".safetensors"):
        listed = fields.fields("tensors")
        tensors = {tensor: _tensor(listed.fields(tensor)) for tensor in listed.names()}
    fields.finish()
    return FileEntry(sha256, size, tensors)


def _tensor(fields: Fields) -> TensorSpec:
    spec = TensorSpec(
        fields.choice("dtype", tuple(DTYPE_BYTES)), fields.integers("shape", 0, _MAX_BYTES, _MAX_DIMENSIONS)
    )
    fields.finish()
    return spec


def _check_files(expected: Mapping[str, Mapping[str, TensorSpec]], files: Mapping[str, FileEntry]) -> None:
    """Exactly the weight files that the sizes imply, with exactly their tensors, and no file that is not known."""
    for name, tensors in expected.items():
        if name not in files:
            raise Malformed(f"does not list {name}")
        if files[name].tensors != tensors:
            raise Malformed(f"lists other tensors for {name} than its config implies")
    if TOKENIZER_FILE not in files:
        raise Malformed(f"does not list {TOKENIZER_FILE}")
    for name in files:
        if name not in expected and name not in EXTRA_FILES:
            raise Malformed(f"lists the unknown file {shown(name)}")
