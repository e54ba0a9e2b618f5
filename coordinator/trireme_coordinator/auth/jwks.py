"""The public keys of an identity provider: from a file or a URL, cached, fetched again when it is time or when a token
names a key that is not known, and never more often than every half minute.

Bounded: bytes, keys, redirects and seconds of a fetch. While the provider is away the keys read last stay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from trireme_proto.errors import ConfigurationError, Unavailable
from trireme_proto.limits import LIMITS

_log = logging.getLogger(__name__)
_FRESH_SECONDS = 300.0
_PAUSE_SECONDS = 30.0
_FETCH_SECONDS = 5.0
_DISCOVERY = "/.well-known/openid-configuration"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Read = Callable[[], bytes]
"""Reads the set's JSON; OSError or ValueError where it cannot be had."""


class KeySet:
    """Keys by their `kid`."""

    def __init__(self, read: Read, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`read` blocks; it is called in a thread."""
        self._read, self._monotonic = read, monotonic
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._asked = self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of this name; None where the provider has none. Unavailable where it never answered."""
        now = self._monotonic()
        if kid not in self._keys or now - self._read_at >= _FRESH_SECONDS:
            await self.refresh()
        if not self._keys:
            raise Unavailable("The identity provider's keys cannot be had at the moment; try again.", retry_after=5.0)
        return self._keys.get(kid)

    async def refresh(self) -> bool:
        """Reads the set, unless that was tried a moment ago. Whether there are keys now."""
        async with self._lock:
            if (now := self._monotonic()) - self._asked >= _PAUSE_SECONDS:
                self._asked = now
                try:
                    self._keys = parse(await asyncio.to_thread(self._read))
                    self._read_at = now
                except (OSError, ValueError) as error:
                    _log.error("the identity provider's keys could not be read: %s", type(error).__name__)
        return bool(self._keys)


def parse(raw: bytes) -> Mapping[str, jwt.PyJWK]:
    """The keys for signatures in a set; those that are not for us are left out. ValueError where it is none."""
    value = _object(raw)
    entries = value.get("keys")
    if not isinstance(entries, list) or len(entries) > LIMITS.jwks_keys:
        raise ValueError("not a set of keys")
    found = {}
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(kid, str) or entry.get("use", "sig") != "sig" or entry.get("kty") not in {"RSA", "EC", "OKP"}:
            continue  # a symmetric key in a public set is a mistake that must open nothing
        try:
            found[kid] = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            continue
    return found


def reader(source: str, issuer: str) -> Read:
    """Reads a file or a URL; of an empty `source` the URL that the issuer's discovery document names.
    ConfigurationError for one that is not protected on its way.
    """
    if source and "://" not in source:
        return lambda: _file(Path(source))
    _check_url(source or issuer)
    return (lambda: _fetch(source)) if source else (lambda: _fetch(_discovered(issuer)))


def _discovered(issuer: str) -> str:
    url = _object(_fetch(issuer.rstrip("/") + _DISCOVERY)).get("jwks_uri")
    if not isinstance(url, str):
        raise ValueError("no jwks_uri")  # noqa: TRY004  (one kind of error for what a provider sends)
    try:
        _check_url(url)
    except ConfigurationError as error:
        raise ValueError("jwks_uri") from error
    return url


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigurationError("The identity provider's keys must come from a file or over https.")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead from https to anything."""

    def redirect_request(self, *_: Any) -> None:
        """None: it is an error."""


def _fetch(url: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(url, timeout=_FETCH_SECONDS) as reply:
        raw: bytes = reply.read(LIMITS.jwks_bytes + 1)
    return _bounded(raw)


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _bounded(file.read(LIMITS.jwks_bytes + 1))


def _bounded(raw: bytes) -> bytes:
    if len(raw) > LIMITS.jwks_bytes:
        raise ValueError("too large")
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return value
