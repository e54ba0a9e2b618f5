"""From an API key to who it belongs to. Follows the file: a key that is created or revoked counts within a second.

A file that turns bad changes nothing (the keys read last stay, and the log says so); one that is gone lets nobody in.
Keys are compared as SHA-256 digests, in constant time, and an unknown id is compared too: how long a refusal takes says
neither how much of a key was right nor whether there is such an id.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from trireme_coordinator.auth import key_file
from trireme_coordinator.auth.api_key import digest, key_id_of
from trireme_coordinator.auth.identity import Identity
from trireme_coordinator.auth.key_file import KeyFile
from trireme_coordinator.auth.quotas import Quota
from trireme_coordinator.store.records import Clock, utc_now
from trireme_proto.errors import ConfigurationError

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_NOBODY = bytes(32)
"""In the place of an unknown key's digest. No key has it: nobody knows what SHA-256 makes it of."""


class KeyRing:
    """The keys of one file."""

    def __init__(self, path: Path, *, clock: Clock = utc_now, monotonic: Callable[[], float] = time.monotonic) -> None:
        """ConfigurationError where the file is no use."""
        self._path, self._clock, self._monotonic = path, clock, monotonic
        self._looked, self._state = monotonic(), _state(path)
        self._file = key_file.read(path)

    def identify(self, key: str) -> Identity | None:
        """Whose key it is; None where it opens nothing, for whichever reason."""
        self._follow()
        stored = self._file.keys.get(key_id_of(key) or "")
        same = hmac.compare_digest(digest(key), _NOBODY if stored is None else stored.sha256)
        if stored is None or not same or not stored.good(self._clock()):
            return None
        return Identity(stored.tenant, stored.scopes, f"key:{stored.key_id}")

    def expires(self, key: str) -> datetime | None:
        """When a good key ends, if ever."""
        stored = self._file.keys.get(key_id_of(key) or "")
        return None if stored is None else stored.expires

    def quota(self, tenant: str) -> Quota | None:
        """The tenant's own quota, where the file gives one."""
        return self._file.quotas.get(tenant)

    def _follow(self) -> None:
        now = self._monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked, state = now, _state(self._path)
        if state == self._state:
            return
        self._state = state
        if state is None:
            _log.error("the file of keys is gone: no key is good any more")
            self._file = KeyFile()
            return
        try:
            self._file = key_file.read(self._path)
        except ConfigurationError as error:
            _log.error("%s The keys that were read last stay.", error.message)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file, its owner and mode included; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_ctime_ns
