"""The node's own copies of packs that come from a URL, by the SHA-256 of their manifests. Reads the environment:

TRIREME_PACKS  the folder that holds them; else ~/.cache/trireme/packs
"""

from __future__ import annotations

import os
from pathlib import Path

from trireme_worker.pack.fetch import fetch, missing_files, wanted_files
from trireme_worker.pack.files import ProgressCallback, ignore_progress, read_manifest
from trireme_worker.pack.manifest import MANIFEST_FILE
from trireme_worker.pack.source import is_url


def cache_folder() -> Path:
    """Where this node keeps packs."""
    given = os.environ.get("TRIREME_PACKS")
    return Path(given) if given else Path.home() / ".cache" / "trireme" / "packs"


def local_pack(
    place: str,
    layers: range,
    *,
    sha256: str = "",
    recheck: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> Path:
    """The folder of a pack: `place` itself, or, for a URL, the node's copy with what `layers` need (an empty range: no
    weights), fetched where it is not there yet.

    `sha256`: of the pack that is expected; with it, nothing is asked of the source where all is there already.
    `recheck`: hashes what is there, and fetches what was damaged anew. Raises as `fetch`.
    """
    if not is_url(place):
        return Path(place)
    if sha256 and not recheck and _there(cache_folder() / sha256, layers, sha256):
        return cache_folder() / sha256
    return fetch(place, lambda found: cache_folder() / found, layers=layers, recheck=recheck, progress=progress).path


def _there(folder: Path, layers: range, sha256: str) -> bool:
    if not (folder / MANIFEST_FILE).exists():
        return False
    manifest, found = read_manifest(folder)
    return found == sha256 and not missing_files(folder, manifest, wanted_files(manifest, layers))
