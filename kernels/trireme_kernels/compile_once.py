"""One process compiles, the others of this machine wait for it: `CompileOnce`.

A file in the cache folder says what is compiled, a line for each; who compiles holds a lock on it.  The system drops
the lock with the process that holds it, so nothing is left over by one that died.  Knows names, never what they are.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trireme_kernels.cache import cache_folder
from trireme_kernels.errors import KernelCacheError

_FILE = "compiled"


def _nothing() -> None:
    """Nothing to say."""


class CompileOnce:
    """What is compiled in `folder`, by default that of these kernels on this CPU.  `KernelCacheError`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self._path = self.folder / _FILE

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that are not compiled yet."""
        try:
            found = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            found = []
        except OSError as e:
            raise KernelCacheError(f"cannot read {self._path}: {e.strerror}") from e
        return [name for name in names if name not in found]

    def done(self, name: str) -> None:
        """Note that `name` is compiled; by the holder of `alone`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(name + "\n")

    @contextmanager
    def alone(self, waiting: Callable[[], None] = _nothing) -> Iterator[None]:
        """Keep out every other process and thread; `waiting` is called before a wait for another."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise KernelCacheError(f"cannot write {self._path}: {e.strerror}") from e
        try:
            _lock(file, waiting)
            yield
        finally:
            os.close(file)  # which unlocks


def _lock(file: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return  # a file system without locks: compiling twice does no harm
