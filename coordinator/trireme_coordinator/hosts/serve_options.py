"""Which options of `trireme serve` a hosts file may give, read from its settings, so that a new one is known here at
once. What `trireme up` sets by itself, or what is a secret, is refused with the place where it belongs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trireme_coordinator.config import ServeConfig
from trireme_proto.errors import ConfigurationError

_ELSEWHERE = {
    "pack": "model",
    "listen": "ports",
    "name": "name",
    "redis_url": "redis: {url-file: FILE}",
    "redis_ca": "tls: {redis-ca: FILE}",
    "ray_address": "hosts",
    "ray_nodes": "hosts",
    "tls_cert": "tls",
    "tls_key": "tls",
    "tls_client_ca": "tls",
    "stage_tls_dir": "tls: {stages: FOLDER}",
    "keys": "keys",
    "data_dir": "folder",
}
_KINDS = {str: "a text", int: "a whole number", float: "a number with a point", bool: "true or false"}


def known() -> dict[str, type]:
    """The type of each option, by the name of its setting."""
    return {field.name: type(field.default) for field in dataclasses.fields(ServeConfig)}


def checked(given: dict[str, Any]) -> dict[str, Any]:
    """`given`, where `serve` knows all of them. ConfigurationError."""
    options = known()
    for name, value in given.items():
        shown = name.replace("_", "-")
        if name in _ELSEWHERE:
            raise ConfigurationError(f"'serve: {{{shown}: ...}}' is given with '{_ELSEWHERE[name]}' in a hosts file.")
        if name not in options:
            raise ConfigurationError(f"'trireme serve' has no option --{shown[:40]}.")
        if type(value) is not options[name]:
            raise ConfigurationError(f"serve: {shown} must be {_KINDS[options[name]]}.")
    return given


def arguments(given: dict[str, Any]) -> list[str]:
    """As a command line has them."""
    found: list[str] = []
    for name, value in sorted(given.items()):
        flag = f"--{name.replace('_', '-')}"
        found += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
    return found
