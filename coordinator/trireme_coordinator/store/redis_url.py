"""Which Redis URLs are accepted. Pure; opens nothing.

A Redis that other machines can reach holds conversations: without a password or TLS it is refused at the start.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qs, urlsplit

from trireme_proto.errors import ConfigurationError

_SCHEMES = ("redis", "rediss", "unix")
_CHECKS = (("ssl_cert_reqs", "required"), ("ssl_check_hostname", "true"))
"""What redis-py lets a URL say about its server's certificate, and the only value that checks it."""


def checked_url(url: str) -> str:
    """The URL itself. ConfigurationError where it is malformed, or open to the network without password and TLS."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _malformed() from None
    if parts.scheme not in _SCHEMES or not (parts.path if parts.scheme == "unix" else host):
        raise _malformed()
    password = parts.password or parse_qs(parts.query).get("password", [""])[0]
    options = parse_qs(parts.query.lower())
    if any(options.get(name, [allowed]) != [allowed] for name, allowed in _CHECKS):
        raise ConfigurationError("The Redis URL must not switch off the check of its server's certificate.")
    if parts.scheme == "redis" and not password and not _loopback(host):
        raise ConfigurationError(
            "The Redis URL needs a password (redis://:PASSWORD@HOST:PORT) or TLS (rediss://), "
            "because this Redis can be reached from other machines."
        )
    return url


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _malformed() -> ConfigurationError:
    return ConfigurationError(
        "The Redis URL must look like redis://:PASSWORD@HOST:PORT/0, rediss://... or unix://PATH."
    )
