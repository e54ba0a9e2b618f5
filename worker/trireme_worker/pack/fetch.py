"""Copies a pack, or the part of it that some layers need, from a source to the disk.

Nothing is believed: the manifest is read first, within bounds, and allows only names that a pack can have; every file
is as long as the manifest says, or refused, and gets its name only when its SHA-256 matched.

    a-pack/                        appears when all that was asked for is there
    .a-pack.<sha>.partial/         until then: files that are complete, and
        layers/00003.safetensors.part   one that is being copied, and goes on where it broke off

A further range of layers is added to a pack that is there file by file, each of them by one rename. A lock on
the folder around it lets one process at a time work on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trireme_proto.errors import ConfigurationError, PackCorrupt, PackNotFound, StartupError
from trireme_proto.limits import LIMITS
from trireme_worker.pack.files import ProgressCallback, ignore_progress, place, read_manifest
from trireme_worker.pack.jsontext import Malformed, parse_object
from trireme_worker.pack.manifest import MANIFEST_FILE, FileEntry, Manifest
from trireme_worker.pack.reader import files_for
from trireme_worker.pack.source import Interrupted, Source, open_source

_ATTEMPTS = 5
"""Times that the connection may break without one more byte in between."""
_PAUSE_SECONDS = 0.5
"""Before the next attempt; twice as long each time."""
_SPARE_BYTES = 64 << 20
"""Of disk space that is left alone."""
_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """A pack, or a part of one, on the disk."""

    path: Path
    manifest: Manifest
    sha256: str
    """Of the manifest: it identifies the model."""
    copied: int
    """Bytes that had to be copied this time."""


def fetch(
    source: str,
    dst: Path | Callable[[str], Path],
    *,
    layers: range | None = None,
    recheck: bool = False,
    progress: ProgressCallback = ignore_progress,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Copies the pack at `source` (a URL, or a folder) to the folder `dst`, or `dst(sha256 of its manifest)`: what
    `layers` need (an empty range: no weights), or all of it, and the files beside the weights.

    Adds to a pack that is there already if it is the same one; `recheck`: hashes what is there, and copies what was
    damaged anew. PackNotFound, PackCorrupt; StartupError when the
    source does not answer, or the disk has no room; ConfigurationError for a wrong source or place.
    """
    return _Copy(open_source(source), progress, pause).to(dst, layers, recheck)


class _Copy:
    def __init__(self, source: Source, progress: ProgressCallback, pause: Callable[[float], None]) -> None:
        self._source, self._progress, self._pause = source, progress, pause
        self._done = self._total = self._copied = 0

    def to(self, place_of: Path | Callable[[str], Path], layers: range | None, recheck: bool) -> Fetched:
        data = self._manifest_bytes()
        manifest, sha256 = _parsed(data), hashlib.sha256(data).hexdigest()
        names = wanted_files(manifest, layers)
        dst = place_of if isinstance(place_of, Path) else place_of(sha256)
        try:
            dst.parent.mkdir(parents=True, exist_ok=True)
            with _locked(dst):
                self._copy_all(dst, data, manifest, sha256, names, recheck)
        except OSError as fault:
            raise ConfigurationError(
                f"cannot write the pack {place(dst)}: {fault.strerror or 'input/output error'}"
            ) from fault
        return Fetched(dst, manifest, sha256, self._copied)

    def _copy_all(
        self, dst: Path, data: bytes, manifest: Manifest, sha256: str, names: list[str], recheck: bool
    ) -> None:
        there = _check_destination(dst, sha256)
        folder = dst if there else dst.parent / f".{dst.name}.{sha256[:16]}.partial"
        missing = missing_files(folder, manifest, names)
        if recheck:
            missing += _damaged(folder, manifest, [name for name in names if name not in missing])
        self._total = sum(manifest.files[name].size for name in missing)
        _check_room(dst.parent, self._total)
        for name in missing:
            self._copy(folder / name, name, manifest.files[name])
        if not there:
            _write(folder / MANIFEST_FILE, data)
            folder.rename(dst)  # over an empty folder, too

    def _copy(self, path: Path, name: str, entry: FileEntry) -> None:
        """Copies a file from where an earlier attempt broke off, and from the beginning if that was not good."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        for fresh in (not part.exists() or part.stat().st_size > entry.size, True):
            if fresh:
                part.unlink(missing_ok=True)
            if self._filled(part, name, entry) == entry.sha256:
                part.rename(path)
                return
            self._done -= entry.size
            part.unlink()
            if fresh:
                break
        raise PackCorrupt(f"{name}: its SHA-256 is not the one that {MANIFEST_FILE} lists")

    def _filled(self, part: Path, name: str, entry: FileEntry) -> str:
        """The SHA-256 of the file once it is as long as it should be."""
        digest = hashlib.sha256()
        with _opened(part) as file:
            while piece := file.read(_CHUNK):
                digest.update(piece)
            self._advance(file.tell())
            for piece in self._bytes(name, file.tell(), entry.size):
                file.write(piece)
                digest.update(piece)
                self._copied += len(piece)
                self._advance(len(piece))
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _advance(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)

    def _manifest_bytes(self) -> bytes:
        data = b"".join(self._bytes(MANIFEST_FILE, 0, None))
        if len(data) > LIMITS.manifest_bytes:
            raise PackCorrupt(f"{MANIFEST_FILE}: is larger than {LIMITS.manifest_bytes} bytes")
        return data

    def _bytes(self, name: str, offset: int, size: int | None) -> Iterator[bytes]:
        """A file's bytes from `offset` on, through broken connections. PackCorrupt where it is not of that size."""
        failures, most = 0, (LIMITS.manifest_bytes if size is None else size) + 1  # one more shows that it is longer
        while size is None or offset <= size:
            try:
                for piece in self._source.read(name, offset, most):
                    offset, failures = offset + len(piece), 0
                    if size is not None and offset > size:
                        break
                    yield piece
                break
            except Interrupted as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise StartupError(f"The source of the pack does not answer, or breaks off: {name}.") from error
                self._pause(_PAUSE_SECONDS * 2 ** (failures - 1))
        if size is not None and offset != size:
            what = "longer" if offset > size else "shorter"
            raise PackCorrupt(f"{name}: is {what} than the {size} bytes that {MANIFEST_FILE} lists")


def wanted_files(manifest: Manifest, layers: range | None) -> list[str]:
    """Names of the files that these layers need, and of those beside the weights; all where `layers` is None."""
    if layers is None:
        return list(manifest.files)
    extras = [name for name in manifest.files if not name.endswith(".safetensors")]
    if layers and not 0 <= layers.start < layers.stop <= manifest.config.layers:
        raise ConfigurationError(
            f"layers {layers.start}:{layers.stop} are not layers of the model: it has {manifest.config.layers}."
        )
    return [*extras, *(files_for(manifest, layers) if layers else ())]


def missing_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    """Those of the files that are not there yet; those that are, were hashed before they got their names."""
    return [name for name in names if not _complete(folder / name, manifest.files[name])]


def _damaged(folder: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    """Those of the files that changed since they were hashed."""
    return [name for name in names if _sha256(folder / name) != manifest.files[name].sha256]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(data: bytes) -> Manifest:
    try:
        return Manifest.from_json(parse_object(data))
    except Malformed as fault:
        raise PackCorrupt(f"{MANIFEST_FILE}: {fault}") from fault


def _check_destination(dst: Path, sha256: str) -> bool:
    """Whether this very pack is there already. ConfigurationError where something else is."""
    if dst.is_symlink() or (dst.exists() and not dst.is_dir()):
        raise ConfigurationError(f"{place(dst)} exists already and is no folder")
    if not dst.exists() or not any(dst.iterdir()):
        return False
    try:
        found = read_manifest(dst)[1]
    except (PackCorrupt, PackNotFound) as fault:
        raise ConfigurationError(f"{place(dst)} exists already and is no pack: name another folder") from fault
    if found != sha256:
        raise ConfigurationError(f"{place(dst)} holds another pack: name another folder")
    return True


def _complete(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == entry.size


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes + _SPARE_BYTES > free:
        raise StartupError(f"The disk has {free / 1e9:.1f} GB free; the pack needs {nbytes / 1e9:.1f} GB more.")


def _opened(part: Path) -> IO[bytes]:
    """A file to be continued: made if it is not there, never reached through a link."""
    return os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+b")


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(dst: Path) -> Iterator[None]:
    """Waits until no other process fetches into the same folder; the lock ends with its holder, however that ends."""
    folder = os.open(dst.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
