"""The conversion as a whole: read the configuration, check the tensors, write the pack.

Owns the order of things, so that whatever is unsupported is found before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np

from trireme_proto.errors import CheckpointUnsupported, ConfigurationError
from trireme_worker.convert.checkpoint import CONFIG_FILE, Checkpoint
from trireme_worker.convert.hf_config import Quantisation, read_generation, read_model
from trireme_worker.convert.layers import Layers
from trireme_worker.convert.names import EMBEDDING, FINAL_NORM, HEAD
from trireme_worker.pack.config import ModelConfig, is_name
from trireme_worker.pack.files import ProgressCallback, ignore_progress
from trireme_worker.pack.jsontext import Malformed, shown
from trireme_worker.pack.manifest import EXTRA_FILES, TOKENIZER_FILE, GenerationDefaults
from trireme_worker.pack.reader import Bits
from trireme_worker.pack.writer import PackContents, check_destination, write_pack

_GENERATION_FILE = "generation_config.json"
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ConversionSummary:
    """What a conversion made."""

    name: str
    layers: int
    parameters: int
    """All weights."""
    ternary_parameters: int
    """Those of the projections, stored in 2 bits."""
    bytes: int
    """Of all files of the pack, without trireme.json."""
    rounded_tables: bool
    """Embedding or head had more precision than bfloat16 and were rounded."""
    layer_bytes: int
    """Of the files of the layers: ternary weights, scales and norms."""

    @property
    def bits_per_weight(self) -> float:
        """Bits that the layers take for each ternary weight, scales, norms and padding included."""
        return 8 * self.layer_bytes / self.ternary_parameters


def convert(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    *,
    name: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> ConversionSummary:
    """Converts the Hugging Face checkpoint in folder `src` into a pack at `dst`, which must not exist or be empty.

    `name`: the model's name, for people; that of the source folder where none is given. Tables in float16 or float32
    are rounded to bfloat16. Raises CheckpointUnsupported (nothing is written), ConfigurationError (the destination).
    """
    source, target = Path(src), Path(dst)
    check_destination(target)
    name = source.resolve().name if name is None else name
    if not is_name(name):
        raise ConfigurationError(f"{shown(name)} cannot be a model's name: give one of printable characters")
    checkpoint = Checkpoint(source)
    config, quantisation, generation = _read_configuration(checkpoint, name)
    layers = Layers(checkpoint, config, quantisation)
    contents = PackContents(
        config=config,
        embedding=_reported(_bfloat16_chunks(checkpoint, EMBEDDING), checkpoint, progress),
        layers=_reported(layers, checkpoint, progress),
        final_norm=checkpoint.floats(FINAL_NORM),
        head=None if config.tied_head else _reported(_bfloat16_chunks(checkpoint, HEAD), checkpoint, progress),
        generation=generation,
        extra_files=_extra_files(checkpoint),
    )
    manifest = write_pack(target, contents)
    sizes = {file: entry.size for file, entry in manifest.files.items()}
    layer_bytes = sum(size for file, size in sizes.items() if file.startswith("layers/"))
    return ConversionSummary(
        name=config.name,
        layers=config.layers,
        parameters=config.parameters,
        ternary_parameters=config.ternary_parameters,
        bytes=sum(sizes.values()),
        rounded_tables=any(checkpoint.tensors[table].dtype != "BF16" for table in _tables(config)),
        layer_bytes=layer_bytes,
    )


def _tables(config: ModelConfig) -> tuple[str, ...]:
    return (EMBEDDING,) if config.tied_head else (EMBEDDING, HEAD)


def _read_configuration(checkpoint: Checkpoint, name: str) -> tuple[ModelConfig, Quantisation, GenerationDefaults]:
    generation, file = GenerationDefaults(), CONFIG_FILE
    try:
        config, quantisation = read_model(checkpoint.json(CONFIG_FILE), name, tied=HEAD not in checkpoint.tensors)
        if checkpoint.file(_GENERATION_FILE) is not None:
            file = _GENERATION_FILE
            config, generation = read_generation(checkpoint.json(file), config)
    except Malformed as fault:
        raise CheckpointUnsupported(f"{file}: {fault}") from fault
    return config, quantisation, generation


def _bfloat16_chunks(checkpoint: Checkpoint, name: str) -> Iterator[Bits]:
    """The rows of a table as bfloat16 bits, rounded to nearest even where they had more."""
    for chunk in checkpoint.float_chunks(name):
        bits = chunk.view(np.uint32)
        yield ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def _extra_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    found = {name: data for name in EXTRA_FILES if (data := checkpoint.file(name)) is not None}
    if TOKENIZER_FILE not in found:
        raise CheckpointUnsupported(f"{TOKENIZER_FILE} is missing: save the tokenizer in the fast tokenizers' format")
    return found


def _reported(items: Iterable[_Item], checkpoint: Checkpoint, progress: ProgressCallback) -> Iterator[_Item]:
    for item in items:
        progress(checkpoint.taken_bytes, checkpoint.total_bytes)
        yield item
