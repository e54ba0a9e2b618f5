"""Certificates for tests, made in milliseconds, and exchanged as a cluster does: by moving a new set into place."""

from __future__ import annotations

import shutil
from pathlib import Path

from trireme_coordinator.dev_certificates import make_certificates

NAMES = ("localhost", "127.0.0.1")


def made(folder: Path, *, client: str = "client") -> Path:
    """A CA, and certificates of it for a server, a client and stages."""
    make_certificates(folder, NAMES, client, days=2)
    return folder


def exchange(folder: Path, new: Path) -> None:
    """The files of `new` in place of those of `folder`, each at once."""
    for path in sorted(new.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(new)
            shutil.copy(path, target.with_suffix(".coming")).replace(target)
