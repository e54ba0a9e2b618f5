"""Where compiled kernels are kept between processes.

    $TRIREME_CACHE_DIR  or  $XDG_CACHE_HOME/trireme  or  ~/.cache/trireme      (0700, ours)
    `- kernels-<key>/                                                          (0700, ours)

Numba's cache holds pickles and machine code, so whoever can write there can run code as us: a folder that belongs to
another user, or that others may write to, is refused. Numba notices neither an edit of an *imported* kernel file nor
another CPU behind the same home folder, so the key is a hash of all of them.
"""

import hashlib
import os
import stat
from pathlib import Path

import llvmlite
import numba

from trireme_kernels.cpu import cpu_features, cpu_name
from trireme_kernels.errors import KernelCacheError
from trireme_kernels.isa import ISA

_PACKAGE = Path(__file__).parent


def cache_folder() -> Path:
    """The folder for this exact version of the kernels on this CPU; created when missing.  `KernelCacheError`."""
    base = _base_folder()
    _own(base)
    folder = base / f"kernels-{_key()}"
    _own(folder)
    return folder


def _base_folder() -> Path:
    if chosen := os.environ.get("TRIREME_CACHE_DIR"):
        return Path(chosen).absolute()
    # The XDG specification says that a relative path is to be ignored.
    if (xdg := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return xdg / "trireme"
    try:
        return Path.home() / ".cache" / "trireme"
    except RuntimeError as e:
        raise KernelCacheError("no home folder to keep compiled kernels in: set TRIREME_CACHE_DIR") from e


def _own(folder: Path) -> None:
    """Create `folder` (0700) or check that only we can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as e:
        raise KernelCacheError(f"cannot create {folder}: set TRIREME_CACHE_DIR to a folder of your own") from e
    if found.st_uid != os.geteuid():
        raise KernelCacheError(f"{folder} belongs to another user: set TRIREME_CACHE_DIR to a folder of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KernelCacheError(f"{folder} can be written by other users: chmod go-w it, or set TRIREME_CACHE_DIR")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KernelCacheError(f"{folder} is read-only: set TRIREME_CACHE_DIR to a folder of your own")


def _key() -> str:
    """Hash of the package's sources, the compiler's versions and the CPU that code is generated for."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    digest.update(f"{numba.__version__} {llvmlite.__version__} {cpu_name()} {cpu_features()} {ISA.name}".encode())
    return digest.hexdigest()[:20]
