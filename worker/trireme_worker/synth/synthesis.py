"""Writes a pack of random weights at a public model's sizes, deterministic in its seed, at the memory of one layer.

Owns which random bits go where (each layer and table has a stream of its own, so that a model of fewer layers begins
with the same ones) and the check that the disk has room before anything is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from trireme_kernels.large_pages import large_empty
from trireme_proto.errors import ConfigurationError
from trireme_worker.pack.config import MAX_LAYERS, ModelConfig
from trireme_worker.pack.files import ProgressCallback, ignore_progress
from trireme_worker.pack.manifest import TOKENIZER_FILE, GenerationDefaults
from trireme_worker.pack.quantised_head import QuantisedHead, passes
from trireme_worker.pack.reader import Bits
from trireme_worker.pack.tensors import EMBEDDING_FILE, HEAD_FILE, file_tensors
from trireme_worker.pack.weights import Float, LayerWeights
from trireme_worker.pack.writer import PackContents, check_destination, write_pack
from trireme_worker.synth.shapes import shape
from trireme_worker.synth.vocabulary import BOS_TOKEN_ID, tokenizer_json
from trireme_worker.synth.weights import layer_bytes, random_layer, random_rows, row_pieces, source

_EMBEDDING, _HEAD, _FIRST_LAYER = range(3)
"""Numbers of the parts that have random bits of their own; layer i is `_FIRST_LAYER + i`."""
MAX_SEED = (1 << 64) - 1
HEAD, LAYOUT = "int8+4bit", "1.6bit"
"""What a pack has unless asked otherwise: the fewest bytes a token, as of `trireme convert`."""
_SPARE = 64 << 20
"""Bytes that a disk must have beyond the weights: tokenizer, manifest, the file system's own."""
GB = 1e9


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What was made."""

    config: ModelConfig
    layout: str
    head: str
    seed: int
    bytes: int
    """Of all files of the pack, without trireme.json."""


def synthesise(
    name: str,
    dst: str | PathLike[str],
    *,
    layout: str = LAYOUT,
    head: str = HEAD,
    layers: int | None = None,
    seed: int = 0,
    progress: ProgressCallback = ignore_progress,
) -> Synthesis:
    """A pack at `dst` with the sizes of the shape `name`, or of its first `layers` layers (more, too).

    `layout` of the ternary weights: "1.6bit" or "2bit"; `head`: "bf16", "int8" or "int8+4bit", quantised from the same
    bfloat16 table. The model has no end-of-text token: an answer is as long as was asked for. ConfigurationError: no
    such shape, a number out of its range, a destination that is there already, or too little room on its disk.
    """
    _check_range("layers", 1 if layers is None else layers, 1, MAX_LAYERS)
    _check_range("seed", seed, 0, MAX_SEED)
    parts = _Parts(synthetic_config(shape(name), layers), layout, head, seed, progress)
    return _write(parts, Path(dst))


def synthetic_config(config: ModelConfig, layers: int | None) -> ModelConfig:
    """A shape's configuration as a synthetic pack has it."""
    cut = "" if layers in {None, config.layers} else f"-{layers}-layers"
    named = replace(config, name=f"synthetic-{config.name}{cut}", layers=layers or config.layers)
    sized = replace(named, bos_token_id=BOS_TOKEN_ID, eos_token_ids=())
    return replace(sized, parameters=sized.counted_parameters())


def _write(parts: _Parts, dst: Path) -> Synthesis:
    config, head = parts.config, parts.head
    check_destination(dst)
    _check_room(dst, config.name, parts.file_bytes)
    contents = PackContents(
        config=config,
        embedding=parts.table(_EMBEDDING),
        layers=parts.layers(),
        final_norm=parts.final_norm(),
        head=parts.head_rows() if head == "bf16" and not config.tied_head else None,
        layout=parts.layout,
        quantised_head=None if head == "bf16" else QuantisedHead(config, head, parts.head_rows),
        generation=GenerationDefaults(),
        extra_files={TOKENIZER_FILE: tokenizer_json(config.vocabulary), "README.md": _card(config, parts.seed)},
    )
    manifest = write_pack(dst, contents)
    return Synthesis(config, parts.layout, head, parts.seed, sum(entry.size for entry in manifest.files.values()))


class _Parts:
    """The weights, drawn when the writer asks for them."""

    def __init__(self, config: ModelConfig, layout: str, head: str, seed: int, progress: ProgressCallback) -> None:
        self.config, self.layout, self.head, self.seed, self._progress = config, layout, head, seed, progress
        tensors = file_tensors(config, layout, head)
        sizes = {name: sum(tensor.nbytes for tensor in held.values()) for name, held in tensors.items()}
        self.file_bytes = sum(sizes.values())
        of_layers = self.file_bytes - sizes[EMBEDDING_FILE] - sizes[HEAD_FILE]
        self._layer_size = of_layers // config.layers
        drawn = passes(head) if head != "bf16" else int(not config.tied_head)
        self._done, self._total = 0, of_layers + (1 + drawn) * sizes[EMBEDDING_FILE]

    def layers(self) -> Iterator[LayerWeights]:
        """All in the same memory: each is on the disk before the next is asked for."""
        memory = large_empty(layer_bytes(self.config, self.layout))
        for i in range(self.config.layers):
            yield random_layer(source(self.seed, _FIRST_LAYER + i), self.config, self.layout, memory)
            self._report(self._layer_size)

    def table(self, part: int) -> Iterator[Bits]:
        """Rows of an embedding or a head."""
        bits, cols = source(self.seed, part), self.config.hidden_size
        for begin, end in row_pieces(self.config.vocabulary, cols):
            yield random_rows(bits, end - begin, cols)
            self._report(2 * (end - begin) * cols)

    def head_rows(self) -> Iterator[Bits]:
        """Rows of the head before it is quantised; those of the embedding where they are tied."""
        return self.table(_EMBEDDING if self.config.tied_head else _HEAD)

    def final_norm(self) -> Float:
        """Gain 1."""
        return np.ones(self.config.hidden_size, np.float32)

    def _report(self, more: int) -> None:
        self._done += more
        self._progress(self._done, self._total)


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{what} is {value}; it must be {low} to {high}")


def _check_room(dst: Path, what: str, needed: int) -> None:
    """ConfigurationError where the disk of `dst`, or of what will be above it, lacks the room."""
    there = next(folder for folder in (dst, *dst.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed + _SPARE > free:
        raise ConfigurationError(f"{what} takes {needed / GB:.1f} GB of disk, {free / GB:.1f} GB are free there")


def _card(config: ModelConfig, seed: int) -> bytes:
    return f"# {config.name}\n\nRandom weights, seed {seed}: for measurements. What it answers is noise.\n".encode()
