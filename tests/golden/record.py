"""Records what Hugging Face transformers computes, for machines without it: `make golden`.

Weights are not recorded: they come from the bundled pack or from a frozen random stream, and `checkpoint` (SHA-256 of
the model.safetensors that transformers read) tells a changed checkpoint from a changed result.

    small-KIND.npz     logits float32 [1, 100, 200], checkpoint
    trained-KIND.npz   over held-out text, [2 texts, 8 windows, ...]: argmax uint16 [256], following float32 [255] (log
                       probability of the token that follows), logits float16 [10 positions, 4096] less each one's
                       maximum
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.golden import models
from tests.golden.transformers_logits import transformers_logits
from tests.reference_checkpoints import KINDS
from tests.reference_metrics import log_softmax


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def following(logits: NDArray, windows: NDArray) -> NDArray[np.float32]:
    """Log probability of each next token: [..., width, vocabulary], [..., width] -> [..., width - 1]."""
    found = np.take_along_axis(log_softmax(logits[..., :-1, :]), windows[..., 1:, None].astype(np.int64), -1)
    return found[..., 0].astype(np.float32)


def record_small(folder: Path, kind: str) -> None:
    checkpoint = models.small_checkpoint(folder, kind)
    logits = transformers_logits(checkpoint, models.small_windows(), packed=KINDS[kind].packed)
    np.savez_compressed(
        models.FOLDER / f"small-{kind}.npz", logits=logits, checkpoint=np.array(checkpoint_hash(checkpoint))
    )


def record_trained(folder: Path, kind: str) -> None:
    checkpoint, windows = models.trained_checkpoint(folder / "trained", kind), models.heldout()
    flat = transformers_logits(checkpoint, windows.reshape(-1, windows.shape[-1]), packed=KINDS[kind].packed)
    logits = flat.reshape(*windows.shape, -1)
    some = logits[:, :, models.POSITIONS]
    np.savez_compressed(
        models.FOLDER / f"trained-{kind}.npz",
        argmax=logits.argmax(-1).astype(np.uint16),
        following=following(logits, windows),
        logits=(some - some.max(-1, keepdims=True)).astype(np.float16),
        checkpoint=np.array(checkpoint_hash(checkpoint)),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind in models.SMALL_KINDS:
            record_small(Path(folder), kind)
        for kind in models.TRAINED_KINDS:
            record_trained(Path(folder), kind)


if __name__ == "__main__":
    main()
