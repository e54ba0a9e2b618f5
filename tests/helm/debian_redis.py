"""Debian's redis-server, which speaks TLS as the wheel's Valkey does not: installed, or unpacked out of its packages.

Nothing is installed: the packages are downloaded by apt into a folder and unpacked there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

_PACKAGES = (
    *("redis-server", "redis-tools", "liblzf1", "libjemalloc2", "liblua5.1-0"),
    *("lua-bitop", "lua-cjson", "libhiredis0.14"),
)
_SECONDS = 120


def programs(folder: Path) -> dict[str, Path] | None:
    """redis-server and redis-cli by name; None where they cannot be had."""
    found = {name: shutil.which(name) for name in ("redis-server", "redis-cli")}
    if all(found.values()):
        return {name: Path(path) for name, path in found.items() if path}
    return _unpacked(folder) if shutil.which("apt-get") and shutil.which("dpkg-deb") else None


def _unpacked(folder: Path) -> dict[str, Path] | None:
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(subprocess.TimeoutExpired):
        fetch = ["apt-get", "download", "-o", "Acquire::http::Timeout=10", *_PACKAGES]
        subprocess.run(fetch, cwd=folder, capture_output=True, timeout=_SECONDS, check=False)
    for file in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", file, folder / "root"], check=True)
    made = {name: _wrapped(folder, name) for name in ("redis-server", "redis-cli")}
    return made if all(_runs(path) for path in made.values()) else None


def _runs(program: Path) -> bool:
    return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0


def _wrapped(folder: Path, name: str) -> Path:
    """A program with the libraries that were unpacked beside it."""
    libraries = os.pathsep.join(str(path) for path in sorted((folder / "root" / "usr" / "lib").glob("*-linux-gnu*")))
    program = folder / name
    program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{folder}/root/usr/bin/{name}" "$@"\n')
    program.chmod(0o755)
    return program
