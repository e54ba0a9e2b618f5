"""API keys on disk: a JSON file that holds their digests, never a key. What is read is data to be checked.

    {"version": 1,
     "keys": [{"id": ..., "sha256": ..., "tenant": ..., "scopes": [...], "name": ..., "created": ...,
               "expires": ..., "revoked": ...}],
     "quotas": {"TENANT": {"requests_per_minute": ..., "tokens_per_minute": ..., "streams": ...}}}

Times are ISO 8601 with a zone. It is replaced as a whole, so that a reader sees the old file or the new one.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from trireme_coordinator.auth.quotas import Quota
from trireme_coordinator.auth.scopes import Scope
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_TENANT = re.compile(rf"[A-Za-z0-9._-]{{1,{LIMITS.tenant_length}}}")
_NAME = re.compile(r"[ -~]{0,64}")
_KEY_ID, _SHA256 = re.compile(r"[0-9a-f]{12}"), re.compile(r"[0-9a-f]{64}")
_UNSAFE = stat.S_IWGRP | stat.S_IRWXO
"""A group may read it, as it does where Kubernetes mounts a secret; nobody else may, and only the owner may write."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is kept of a key."""

    key_id: str
    sha256: bytes
    tenant: str
    scopes: frozenset[Scope]
    name: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def good(self, now: datetime) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """All keys, by id, and the quotas of tenants that have their own."""

    keys: Mapping[str, StoredKey] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)


def checked_tenant(tenant: str) -> str:
    """The name itself. ConfigurationError where it is none."""
    if not _TENANT.fullmatch(tenant):
        raise ConfigurationError(f"A tenant's name must be 1 to {LIMITS.tenant_length} letters, digits and . _ or -.")
    return tenant


def checked_name(name: str) -> str:
    """The note on a key itself. ConfigurationError where it is too long or unprintable."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError("A key's name must be at most 64 printable ASCII characters.")
    return name


def read(path: Path) -> KeyFile:
    """ConfigurationError where it is missing, open to others, too large, or not a file of keys."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if state.st_mode & _UNSAFE:
                raise ConfigurationError("The file of keys is open to others: chmod 600 it.")
            raw = file.read(LIMITS.key_file_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"The file of keys cannot be read ({error.strerror}).") from error
    if len(raw) > LIMITS.key_file_bytes:
        raise ConfigurationError(f"The file of keys is larger than {LIMITS.key_file_bytes} bytes.")
    try:
        return _from_json(json.loads(raw))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError("The file of keys is damaged, or not one of keys.") from error


def write(path: Path, keys: KeyFile) -> None:
    """Replaces the file, mode 0600. OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(_to_json(keys), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _from_json(value: Any) -> KeyFile:
    if value["version"] != 1 or set(value) - {"version", "keys", "quotas"}:
        raise ValueError("version")
    if len(value["keys"]) > LIMITS.api_keys:
        raise ValueError("too many keys")
    keys = [_key(entry) for entry in value["keys"]]
    found = {key.key_id: key for key in keys}
    if len(found) < len(keys):
        raise ValueError("two keys of one id")
    return KeyFile(found, {checked_tenant(name): Quota(**quota) for name, quota in value.get("quotas", {}).items()})


def _key(entry: Mapping[str, Any]) -> StoredKey:
    if not _KEY_ID.fullmatch(entry["id"]) or not _SHA256.fullmatch(entry["sha256"]):
        raise ValueError("key")
    return StoredKey(
        key_id=entry["id"],
        sha256=bytes.fromhex(entry["sha256"]),
        tenant=checked_tenant(entry["tenant"]),
        scopes=frozenset(map(Scope, entry["scopes"])),
        name=checked_name(entry.get("name", "")),
        created=_required(_time(entry["created"])),
        expires=_time(entry.get("expires")),
        revoked=_time(entry.get("revoked")),
    )


def _time(text: str | None) -> datetime | None:
    """With its zone: a time without one would mean another hour elsewhere. ValueError."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("zone")
    return moment


def _required(moment: datetime | None) -> datetime:
    if moment is None:
        raise ValueError("created")
    return moment


def _to_json(keys: KeyFile) -> dict[str, Any]:
    return {
        "version": 1,
        "keys": [
            {
                "id": key.key_id,
                "sha256": key.sha256.hex(),
                "tenant": key.tenant,
                "scopes": sorted(key.scopes),
                "name": key.name,
                "created": key.created.isoformat(),
                "expires": key.expires and key.expires.isoformat(),
                "revoked": key.revoked and key.revoked.isoformat(),
            }
            for key in keys.keys.values()
        ],
        "quotas": {tenant: asdict(quota) for tenant, quota in keys.quotas.items()},
    }
