"""The conversion as a whole: read the configuration, check the tensors, write the pack.

Owns the order of things, so that whatever is unsupported is found before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np

from trireme_kernels.packing import LAYOUTS
from trireme_proto.errors import CheckpointUnsupported, ConfigurationError
from trireme_worker.convert.checkpoint import CONFIG_FILE, Checkpoint
from trireme_worker.convert.hf_config import Quantisation, read_generation, read_model
from trireme_worker.convert.layers import Layers
from trireme_worker.convert.names import EMBEDDING, FINAL_NORM
from trireme_worker.convert.names import HEAD as LM_HEAD
from trireme_worker.pack.config import ModelConfig, is_name
from trireme_worker.pack.files import ProgressCallback, ignore_progress
from trireme_worker.pack.jsontext import Malformed, shown
from trireme_worker.pack.manifest import EXTRA_FILES, TOKENIZER_FILE, GenerationDefaults
from trireme_worker.pack.quantised_head import QuantisedHead, passes
from trireme_worker.pack.reader import Bits
from trireme_worker.pack.tensors import HEAD_KINDS
from trireme_worker.pack.writer import PackContents, check_destination, write_pack

HEAD, LAYOUT = "int8+4bit", "1.6bit"
"""What a pack has unless asked otherwise: the fewest bytes a token."""
_GENERATION_FILE = "generation_config.json"
_BFLOAT16_INFINITY = 0x7F80
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ConversionSummary:
    """What a conversion made."""

    name: str
    layers: int
    parameters: int
    """All weights."""
    ternary_parameters: int
    """Those of the projections."""
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
    head: str = HEAD,
    layout: str = LAYOUT,
    progress: ProgressCallback = ignore_progress,
) -> ConversionSummary:
    """Converts the Hugging Face checkpoint in folder `src` into a pack at `dst`, which must not exist or be empty.

    `name`: the model's name, for people; that of the source folder where none is given. `head`: how the output head is
    stored, "bf16", "int8" or "int8+4bit". `layout`: of the ternary weights, "2bit" or "1.6bit"; the pack does not
    depend on the CPU. Tables in float16 or float32 are rounded to bfloat16. Raises CheckpointUnsupported (nothing is
    written), ConfigurationError (the destination, or another option).
    """
    _check_choice("head", head, HEAD_KINDS)
    _check_choice("layout", layout, LAYOUTS)
    source, target = Path(src), Path(dst)
    check_destination(target)
    name = source.resolve().name if name is None else name
    if not is_name(name):
        raise ConfigurationError(f"{shown(name)} cannot be a model's name: give one of printable characters")
    checkpoint = Checkpoint(source)
    config, quantisation, generation = _read_configuration(checkpoint, name)
    layers = Layers(checkpoint, config, quantisation, layout)
    work = _Work(checkpoint, config, head, progress)
    contents = PackContents(
        config=config,
        embedding=work.reported(_bfloat16_chunks(checkpoint, EMBEDDING)),
        layers=work.reported(layers),
        final_norm=checkpoint.floats(FINAL_NORM),
        head=work.reported(_bfloat16_chunks(checkpoint, LM_HEAD)) if head == "bf16" and not config.tied_head else None,
        quantised_head=None if head == "bf16" else QuantisedHead(config, head, work.head_rows),
        layout=layout,
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


class _Work:
    """How much is done: bytes of the checkpoint that were taken, and of its head as often as it is quantised."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, head: str, progress: ProgressCallback) -> None:
        self._checkpoint, self._progress, self._quantised = checkpoint, progress, 0
        self._table = EMBEDDING if config.tied_head else LM_HEAD
        self._total = checkpoint.total_bytes + passes(head) * 2 * config.vocabulary * config.hidden_size

    def reported(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The same items; before each one, what is done is said."""
        for item in items:
            self._report()
            yield item

    def head_rows(self) -> Iterator[Bits]:
        """The head's rows in bfloat16, some at a time."""
        for rows in _bfloat16_chunks(self._checkpoint, self._table):
            self._quantised += rows.nbytes
            self._report()
            yield rows

    def _report(self) -> None:
        self._progress(self._checkpoint.taken_bytes + self._quantised, self._total)


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{option} is {shown(value)}; it must be one of {', '.join(choices)}")


def _tables(config: ModelConfig) -> tuple[str, ...]:
    return (EMBEDDING,) if config.tied_head else (EMBEDDING, LM_HEAD)


def _read_configuration(checkpoint: Checkpoint, name: str) -> tuple[ModelConfig, Quantisation, GenerationDefaults]:
    generation, file = GenerationDefaults(), CONFIG_FILE
    try:
        config, quantisation = read_model(checkpoint.json(CONFIG_FILE), name, tied=LM_HEAD not in checkpoint.tensors)
        if checkpoint.file(_GENERATION_FILE) is not None:
            file = _GENERATION_FILE
            config, generation = read_generation(checkpoint.json(file), config)
    except Malformed as fault:
        raise CheckpointUnsupported(f"{file}: {fault}") from fault
    return config, quantisation, generation


def _bfloat16_chunks(checkpoint: Checkpoint, name: str) -> Iterator[Bits]:
    """The rows of a table as bfloat16 bits, rounded to nearest even where they had more. Values stay finite."""
    for chunk in checkpoint.float_chunks(name):
        bits = chunk.view(np.uint32)
        rounded = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
        if (rounded & 0x7FFF).max(initial=0) >= _BFLOAT16_INFINITY:
            raise CheckpointUnsupported(f"{name} holds values that are too large for bfloat16")
        yield rounded


def _extra_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    found = {name: data for name in EXTRA_FILES if (data := checkpoint.file(name)) is not None}
    if TOKENIZER_FILE not in found:
        raise CheckpointUnsupported(f"{TOKENIZER_FILE} is missing: save the tokenizer in the fast tokenizers' format")
    return found
