"""Create, list and revoke keys in a file. One writer at a time, by a lock on a file beside it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from trireme_coordinator.auth import key_file
from trireme_coordinator.auth.api_key import digest, new_key
from trireme_coordinator.auth.key_file import KeyFile, StoredKey
from trireme_coordinator.auth.quotas import Quota
from trireme_coordinator.auth.scopes import Scope
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS


def create(
    path: Path,
    tenant: str,
    scopes: Sequence[str],
    now: datetime,
    *,
    name: str = "",
    expires: datetime | None = None,
    quota: Quota | None = None,
) -> tuple[StoredKey, str]:
    """What is stored, and the key itself, which nothing can show again. Makes the file where there is none.
    ConfigurationError.
    """
    key_id, key = new_key()
    stored = StoredKey(
        key_id, digest(key), key_file.checked_tenant(tenant), _scopes(scopes), key_file.checked_name(name), now, expires
    )
    with _changing(path):
        held = key_file.read(path) if path.exists() else KeyFile()
        if len(held.keys) >= LIMITS.api_keys:
            raise ConfigurationError(f"The file holds {LIMITS.api_keys} keys, which is all that it may.")
        quotas = {**held.quotas, tenant: quota} if quota is not None else held.quotas
        key_file.write(path, KeyFile({**held.keys, key_id: stored}, quotas))
    return stored, key


def revoke(path: Path, key_id: str, now: datetime) -> StoredKey:
    """The key, which opens nothing any more; it stays in the list. ConfigurationError where there is none."""
    with _changing(path):
        held = key_file.read(path)
        if (stored := held.keys.get(key_id)) is None:
            raise ConfigurationError("There is no key of this id in the file; `trireme keys list` shows them.")
        if stored.revoked is None:
            stored = replace(stored, revoked=now)
            key_file.write(path, KeyFile({**held.keys, key_id: stored}, held.quotas))
    return stored


def _scopes(names: Sequence[str]) -> frozenset[Scope]:
    if not names or set(names) - set(Scope):
        raise ConfigurationError(f"A scope must be one of {', '.join(Scope)}.")
    return frozenset(map(Scope, names))


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Alone with the file. ConfigurationError where the folder cannot be written to."""
    try:
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"The folder of the file of keys cannot be written to ({error.strerror}).") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
