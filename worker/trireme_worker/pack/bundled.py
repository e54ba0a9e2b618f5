"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path


def default_pack() -> Path:
    """The folder of the bundled pack: a small BitNet b1.58 model that was trained for this project."""
    return Path(__file__).parent.parent / "models" / "tiny"
