"""Files of the deployment: 0600, written whole or not at all, in folders 0700; digests; the lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from trireme_coordinator.hosts.agent.words import Json, Refused


def write(path: Path, data: bytes) -> None:
    """All of a file or nothing of it, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:  # noqa: PTH123
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def empty(folder: Path) -> None:
    """A folder with nothing in it; what was there is kept beside it, once."""
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    folder.mkdir(mode=0o700, parents=True)


def secret(path: Path) -> str:
    """The content of a file; 32 random bytes in hexadecimal where there is none yet."""
    if not path.exists():
        write(path, secrets.token_hex(32).encode())
    return path.read_text()


def read(path: Path) -> Json:
    """A JSON object; empty where there is none, or no whole one."""
    try:
        found: Json = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file; empty where there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def wheels(root: Path) -> dict[str, str]:
    """Digests of those that are there, by name."""
    return {path.name: digest(path) for path in sorted((root / "wheels").glob("*")) if path.is_file()}


def keep_only(folder: Path, names: list[str]) -> None:
    """Without the wheels of former installations: pip would take them for this one's."""
    for path in folder.glob("*"):
        if path.is_file() and path.name not in names:
            path.unlink()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Refused where another caller changes this host at the moment."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("Another 'trireme up' or 'down' is at work on this host.") from None
        yield
