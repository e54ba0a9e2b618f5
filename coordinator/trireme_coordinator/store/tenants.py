"""Sessions of tenants, apart by construction: a session's name in the store begins with a tag of its tenant, so that
what another tenant asks for by the same id is another name, and is not there.

    id that the caller sees     0f3c...                      name in the store, the scheduler and everywhere else
    of the default tenant       0f3c...                      0f3c...
    of tenant "acme"            0f3c...                      822e...(32 digits).0f3c...

No id that a caller gives may hold a ".", so that none can name a session of another tenant. The default tenant is the
only one of a server without authentication, and the one called "default" of a server with it.
"""

from __future__ import annotations

import hashlib

from trireme_coordinator.store.records import checked_id, named, not_found

DEFAULT_TENANT = "default"
_TAG_DIGITS = 32


def tag(tenant: str) -> str:
    """Stands for a tenant in names and in the scheduler: "" or 32 hexadecimal digits, whatever its name is."""
    return "" if tenant == DEFAULT_TENANT else hashlib.sha256(tenant.encode()).hexdigest()[:_TAG_DIGITS]


def scoped(tenant: str, session_id: str) -> str:
    """The name of the session that the caller calls `session_id`. SessionNotFound where no id has that form."""
    if "." in session_id:
        raise not_found()
    return checked_id(named(tag(tenant), session_id))


def scoped_request(tenant: str, request_id: str) -> str:
    """The same for a request id that finds its session by itself: no request id holds a "/"."""
    return f"{mark}/{request_id}" if (mark := tag(tenant)) else request_id


def shown(name: str) -> str:
    """The id that the caller sees."""
    return name.rpartition(".")[2]
