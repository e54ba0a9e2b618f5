"""The Redis user that Trireme needs, and nothing more: our keys, our commands. Pure."""

from __future__ import annotations

import hashlib
import re

from trireme_coordinator.store.layout import COMMANDS, KEY_PATTERN
from trireme_proto.errors import ConfigurationError
from trireme_worker.page_redis import COMMANDS as PAGE_COMMANDS

_USER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LEAST_PASSWORD = 16


def acl_rules(password: str, *, pages: bool = True) -> str:
    """What follows the user's name, as Redis writes it, in its settings and after ACL SETUSER. The password's SHA-256
    stands for it. `pages`: KV pages may be kept there too.
    """
    if len(password) < _LEAST_PASSWORD or any(c.isspace() or not c.isprintable() for c in password):
        raise ConfigurationError(f"The password must have {_LEAST_PASSWORD} characters or more, and no blanks.")
    digest = hashlib.sha256(password.encode()).hexdigest()
    commands = dict.fromkeys([*COMMANDS, *(PAGE_COMMANDS if pages else ())])
    allowed = " ".join(f"+{command}" for command in commands)
    return f"reset on #{digest} ~{KEY_PATTERN} {allowed}"


def acl_line(user: str, password: str, *, pages: bool = True) -> str:
    """The line for redis.conf or users.acl. ConfigurationError."""
    if not _USER.fullmatch(user):
        raise ConfigurationError("The user's name must be 1 to 64 letters, digits and . _ or -.")
    return f"user {user} {acl_rules(password, pages=pages)}"
