"""Where a pack comes from: a folder, or a URL of http, https or s3, read in pieces from any offset.

Owns what may be read from (the schemes), how much at once, and the names of transport errors. Knows nothing of what the
bytes should be: whoever reads checks sizes and hashes. Messages never show the address, which may hold a key.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, Protocol

from trireme_proto.errors import ConfigurationError, PackCorrupt, PackNotFound

_EXTRAS = {"http": "server", "https": "server", "s3": "s3"}
"""What to install where the library for a scheme is missing."""
_SCHEMES = ("file", *_EXTRAS)
_GONE = (404, 410)
"""HTTP statuses of what is not there."""
_BLOCK = 8 << 20
"""Bytes asked for at once: one ranged request."""


class Interrupted(Exception):
    """The connection broke, or the server failed; reading on from where it broke may help."""


class Source(Protocol):
    """The files of one pack, by name."""

    def read(self, name: str, offset: int, end: int) -> Iterator[bytes]:
        """The bytes [offset, end) of a file, or fewer where it is shorter, in pieces. Interrupted; PackNotFound for a
        file that is not there.
        """


def is_url(place: str) -> bool:
    """Whether this names a source to fetch from, not a folder."""
    return "://" in place


def open_source(place: str) -> Source:
    """The source at a URL, or in a folder. ConfigurationError: a scheme that is unknown, a library that is missing."""
    scheme = place.partition("://")[0].lower() if is_url(place) else "file"
    if scheme not in _SCHEMES:
        raise ConfigurationError(f"A pack cannot be fetched over '{scheme[:20]}': it can over {', '.join(_SCHEMES)}.")
    import fsspec  # noqa: PLC0415 - half a second, for those who fetch

    try:
        system, root = fsspec.core.url_to_fs(place, use_listings_cache=False, skip_instance_cache=True)
    except (ImportError, ModuleNotFoundError) as error:
        needed = _EXTRAS.get(scheme, "server")
        raise ConfigurationError(
            f"Fetching over {scheme} needs more: pip install 'trireme-inference[{needed}]'"
        ) from error
    except (ValueError, OSError) as error:
        raise ConfigurationError("That is no address that a pack can be fetched from.") from error
    return FsspecSource(system, str(root).rstrip("/"))


class FsspecSource:
    """Any file system of fsspec."""

    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root
        self._broken = _transport_errors()

    def read(self, name: str, offset: int, end: int) -> Iterator[bytes]:
        """See Source. What a server sends from the beginning only is read from there, up to `offset` for nothing."""
        path = f"{self._root}/{name}"
        try:
            yield from self._pieces(path, name, offset, end)
        except FileNotFoundError as error:
            if self._is_broken(error.__cause__):
                raise Interrupted(name) from error  # fsspec says so, too, of a server that does not answer
            raise PackNotFound(f"there is no {name} at the source of the pack") from error
        except self._broken as error:
            raise Interrupted(name) from error

    def _is_broken(self, cause: BaseException | None) -> bool:
        missing = isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in _GONE
        return isinstance(cause, self._broken) and not missing

    def _pieces(self, path: str, name: str, offset: int, end: int) -> Iterator[bytes]:
        if self._system.info(path).get("type", "file") != "file":  # reading a FIFO would wait for ever
            raise PackCorrupt(f"{name}: is not a file")
        try:
            with self._system.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as file:
                file.seek(offset)
                while offset < end and (piece := file.read(min(_BLOCK, end - offset))):
                    offset += len(piece)
                    yield piece
        except ValueError:  # fsspec's word for a server that sends files from their beginning only
            yield from self._skipping(path, offset, end)

    def _skipping(self, path: str, offset: int, end: int) -> Iterator[bytes]:
        """Reads from the beginning and leaves out what is before `offset`."""
        at = 0
        with self._system.open(path, "rb", block_size=0) as file:
            while at < end and (piece := file.read(min(_BLOCK, end - at))):
                known = max(0, min(len(piece), offset - at))
                at += len(piece)
                yield piece[known:]


def _transport_errors() -> tuple[type[BaseException], ...]:
    """What the libraries raise when a connection breaks."""
    found: list[type[BaseException]] = [OSError, EOFError]
    with contextlib.suppress(ModuleNotFoundError):
        found.append(importlib.import_module("aiohttp").ClientError)
    return tuple(found)
