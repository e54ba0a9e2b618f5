"""The API key that goes with each call, and where it must not go: unencrypted over a network. Opens nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from trireme import _config
from trireme_proto.errors import ConfigurationError

Metadata = tuple[tuple[str, str], ...]
_LONGEST = 8 << 10


@dataclass(frozen=True, slots=True, repr=False)
class Authorization:
    """What is sent with each call; never shown by `repr`."""

    metadata: Metadata = ()


def authorization(
    api_key: str | None, targets: Sequence[str], *, encrypted: bool, insecure: bool = False
) -> Authorization:
    """Of a key or token, else of the environment's TRIREME_API_KEY; empty where there is none. ConfigurationError where
    it cannot be one, or where it would travel readable to another machine, unless `insecure` says that it may.
    """
    key = _config.api_key() if api_key is None else api_key
    if not key:
        return Authorization()
    if len(key) > _LONGEST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("The API key has characters that no key has; was more than the key copied?")
    if not (encrypted or insecure or _config.insecure_api_key() or all(map(is_loopback, targets))):
        raise ConfigurationError(
            "An API key is not sent to another machine without TLS: give a CA (ca=, --ca, TRIREME_CA; 'system' for the "
            "public ones), or say insecure_api_key=True (--insecure-api-key)."
        )
    return Authorization((("authorization", f"Bearer {key}"),))


def is_loopback(target: str) -> bool:
    """Whether HOST:PORT is certainly this machine."""
    host = target.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
