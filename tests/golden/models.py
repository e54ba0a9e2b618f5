"""The models that are compared, as checkpoints made on the spot, and the windows of tokens that go through them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.reference_checkpoints import KINDS, exported, random_checkpoint

from trireme_worker.convert import convert
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel

FOLDER = Path(__file__).parent
TRAINED_KINDS = ("master-bf16", "packed")
SMALL_KINDS = ("master-bf16", "packed", "llama-bitlinear")
SMALL_SEED = 20
WINDOWS = 8
"""Held-out windows of each text that go through the trained model."""
POSITIONS = tuple(range(15, 255, 24))
"""Positions of a window whose whole logits are recorded."""


def trained_checkpoint(folder: Path, kind: str) -> Path:
    """The bundled model as a Hugging Face checkpoint."""
    return exported(Pack.open(default_pack()), folder / kind, KINDS[kind])


def small_checkpoint(folder: Path, kind: str) -> Path:
    """A small random model."""
    return random_checkpoint(folder / kind, KINDS[kind], SMALL_SEED)


def heldout() -> NDArray[np.uint16]:
    """Token ids of text that the trained model never saw: [2 texts, 8 windows, 256]."""
    return np.load(FOLDER / "heldout.npy")[:, :WINDOWS]


def small_windows() -> NDArray[np.uint16]:
    """[1 window, 100] for the small models."""
    return np.random.RandomState(SMALL_SEED).randint(0, 200, (1, 100)).astype(np.uint16)  # frozen


def engine_logits(checkpoint: Path, windows: NDArray) -> NDArray[np.float32]:
    """Converts the checkpoint and runs our engine over windows [..., width]: [..., width, vocabulary]."""
    folder = checkpoint.with_name(f"{checkpoint.name}.pack")
    if not folder.exists():
        convert(checkpoint, folder, head="bf16")  # as transformers computes it
    pack = Pack.open(folder)
    model = StageModel(pack, range(pack.config.layers), kv_tokens=windows.shape[-1], slots=1)
    try:
        rows = [model.logits(window.tolist()) for window in windows.reshape(-1, windows.shape[-1])]
    finally:
        model.close()
    return np.stack(rows).reshape(*windows.shape, -1)
