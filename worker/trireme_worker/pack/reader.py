"""Opens a pack and hands out its weights, mapped from its files.

Owns which files a range of layers needs. With `verify`, no array is handed out before its file's SHA-256 matched.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.head_weights import HeadWeights
from trireme_kernels.matrix import PackedMatrix
from trireme_proto.errors import PackNotFound
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.files import PackFiles, ProgressCallback, ignore_progress, place, read_manifest
from trireme_worker.pack.manifest import MANIFEST_FILE, TOKENIZER_FILE, GenerationDefaults, Manifest
from trireme_worker.pack.tensors import EMBEDDING_FILE, HEAD_FILE, layer_file, matrices
from trireme_worker.pack.weights import Float, LayerWeights

Bits = NDArray[np.uint16]
"""bfloat16 values as their bits."""
Head = Bits | HeadWeights
"""An output head: a table in bfloat16, uint16 [vocabulary, hidden_size], or one of integers."""


class Pack:
    """A packed model on the disk; see `open`. Arrays are read-only maps of its files."""

    config: ModelConfig
    generation: GenerationDefaults
    layout: str
    """Layout of the ternary weights: "2bit" or "1.6bit"."""
    head_kind: str
    """How the output head is stored: "bf16", "int8" or "int8+4bit"."""
    path: Path
    sha256: str
    """Of trireme.json, which lists those of all other files: it identifies the model."""

    def __init__(self, path: Path, manifest: Manifest, sha256: str, *, verify: bool) -> None:
        self.path, self.sha256, self.manifest = path, sha256, manifest
        self.config, self.generation, self.layout = manifest.config, manifest.generation, manifest.layout
        self.head_kind = manifest.head
        self._files = PackFiles(path, manifest)
        self._verify = verify

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        verify: bool = True,
        layers: range | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> Pack:
        """Opens the pack in the folder `path` and checks that its files are there and match each other.

        `layers`: only the files that these layers need, embedding and head included where they are first or last.
        `verify`: compare their SHA-256 with the manifest (about a second per GB). Raises PackNotFound, PackCorrupt.
        """
        root = Path(path)
        _check_place(root)
        manifest, sha256 = read_manifest(root)
        pack = cls(root, manifest, sha256, verify=verify)
        names = tuple(manifest.files) if layers is None else pack.files_for(layers)
        pack._files.check_present(names)
        if verify:
            pack.verify_files(names, progress)
        return pack

    def files_for(self, layers: range) -> tuple[str, ...]:
        """Names of the weight files that a stage with these layers maps."""
        config = self.config
        if layers.step != 1 or not 0 <= layers.start < layers.stop <= config.layers:
            raise ValueError(f"{layers} is not a range of the model's {config.layers} layers")
        first, last = layers.start == 0, layers.stop == config.layers
        names = [layer_file(i) for i in layers]
        names += [EMBEDDING_FILE] if first or (last and self._head_is_embedding) else []
        return tuple(names + ([HEAD_FILE] if last else []))

    def verify_files(self, names: Iterable[str], progress: ProgressCallback = ignore_progress) -> None:
        """Compares the SHA-256 of these files with the manifest, each file once. Raises PackCorrupt."""
        self._files.verify([self._known(name) for name in names], progress)

    def layer(self, index: int) -> LayerWeights:
        """Weights of layer `index`."""
        arrays = self._tensors(layer_file(index))
        shapes = matrices(self.config)

        def matrix(name: str) -> PackedMatrix:
            scales = arrays[f"{name}.scales"].view(np.float32)
            return PackedMatrix(arrays[name], scales, *shapes[name], self.layout)

        def gain(name: str) -> Float | None:
            return arrays[name].view(np.float32) if name in arrays else None

        return LayerWeights(
            attention_norm=arrays["attention_norm"].view(np.float32),
            qkv=matrix("qkv"),
            attention_sub_norm=gain("attention_sub_norm"),
            output=matrix("output"),
            ffn_norm=arrays["ffn_norm"].view(np.float32),
            gate_up=matrix("gate_up"),
            ffn_sub_norm=gain("ffn_sub_norm"),
            down=matrix("down"),
        )

    def embedding(self) -> Bits:
        """The embedding table: bfloat16 bits, uint16 [vocabulary, hidden_size]."""
        return self._table(EMBEDDING_FILE, "embedding")

    def head(self) -> Head:
        """The head; of kind bf16 and tied, it is the embedding's table."""
        if self.head_kind == "bf16":
            return self.embedding() if self.config.tied_head else self._table(HEAD_FILE, "head")
        arrays = self._tensors(HEAD_FILE)
        shapes = {name: spec.shape for name, spec in self.manifest.files[HEAD_FILE].tensors.items()}
        return HeadWeights(
            self.config.hidden_size,
            levels=arrays["head.levels"].view(np.int8).reshape(shapes["head.levels"]),
            scales=arrays["head.scales"].view(np.float32),
            totals=arrays["head.totals"].view(np.int32),
            codes=arrays["head.codes"].reshape(shapes["head.codes"]) if "head.codes" in arrays else None,
            dither=arrays.get("head.dither"),
        )

    def final_norm(self) -> Float:
        """Gain of the norm before the head, float32 [hidden_size]."""
        return self._tensors(HEAD_FILE)["final_norm"].view(np.float32)

    def layer_bytes(self, index: int) -> int:
        """Bytes of a layer's file."""
        return self.manifest.files[self._known(layer_file(index))].size

    def embedding_bytes(self) -> int:
        """Bytes of the embedding's file."""
        return self.manifest.files[EMBEDDING_FILE].size

    def head_bytes(self) -> int:
        """Bytes of the files that the head needs: its own, and the embedding's where that is its table."""
        return self.manifest.files[HEAD_FILE].size + (self.embedding_bytes() if self._head_is_embedding else 0)

    def head_read_bytes(self) -> int:
        """Bytes that the head reads for a token: of kind int8+4bit, when only the largest logits are wanted, the levels
        stay unread but for a few rows.
        """
        tensors = self.manifest.files[HEAD_FILE].tensors
        unread = tensors["head.levels"].nbytes if self.head_kind == "int8+4bit" else 0
        return self.head_bytes() - unread

    def tokenizer_path(self) -> Path:
        """The tokenizer.json of the pack, verified."""
        self._ensure_verified(TOKENIZER_FILE)
        return self._files.path(TOKENIZER_FILE)

    @property
    def _head_is_embedding(self) -> bool:
        return self.config.tied_head and self.head_kind == "bf16"

    def _table(self, file: str, name: str) -> Bits:
        return self._tensors(file)[name].view(np.uint16).reshape(self.config.vocabulary, self.config.hidden_size)

    def _tensors(self, name: str) -> dict[str, NDArray[np.uint8]]:
        self._ensure_verified(name)
        return self._files.tensors(name)

    def _ensure_verified(self, name: str) -> None:
        if self._verify:
            self.verify_files([name])
        self._known(name)

    def _known(self, name: str) -> str:
        if name not in self.manifest.files:
            raise ValueError(f"the pack has no file {name}")
        return name


def _check_place(root: Path) -> None:
    """PackNotFound with advice, where there is no manifest; PackCorrupt is for what is inside one."""
    try:
        found, checkpoint = (root / MANIFEST_FILE).exists(), (root / "config.json").exists()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        found, checkpoint = False, False
    if checkpoint and not found:
        raise PackNotFound(f"{place(root)} is a Hugging Face checkpoint, not a pack: run `trireme convert` on it first")
    if not found:
        raise PackNotFound(f"there is no pack at {place(root)}: no {MANIFEST_FILE} there")
