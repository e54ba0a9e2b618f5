"""A guard with keys of several tenants, for servers in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trireme_coordinator.auth import key_admin
from trireme_coordinator.auth.audit import AuditLog
from trireme_coordinator.auth.guard import Credentials, Guard
from trireme_coordinator.auth.key_ring import KeyRing
from trireme_coordinator.auth.quotas import Quota, Quotas

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USER = ("generate", "sessions")


@dataclass
class Keyed:
    """Keys by tenant, and the guard that knows them."""

    file: Path
    keys: dict[str, str]
    quotas: Quotas
    guard: Guard
    audit: AuditLog | None = None
    ids: dict[str, str] = field(default_factory=dict)


def keyed(
    folder: Path,
    tenants: Mapping[str, Sequence[str]] | Sequence[str],
    *,
    quota: Quota | None = None,
    audit: AuditLog | None = None,
    open_reflection: bool = False,
) -> Keyed:
    """A key for each tenant, with its scopes (else those of a user)."""
    file = folder / "keys.json"
    scopes = tenants if isinstance(tenants, Mapping) else dict.fromkeys(tenants, USER)
    made = {tenant: key_admin.create(file, tenant, list(each), NOW) for tenant, each in scopes.items()}
    ring = KeyRing(file)
    quotas = Quotas(lambda tenant: ring.quota(tenant) or quota or Quota())
    guard = Guard(Credentials(ring), quotas, audit, open_reflection=open_reflection)
    keys = {tenant: key for tenant, (_, key) in made.items()}
    return Keyed(file, keys, quotas, guard, audit, {tenant: stored.key_id for tenant, (stored, _) in made.items()})
