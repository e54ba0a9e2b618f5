"""`trireme keys create|list|revoke`: the file of API keys that `trireme serve --keys` reads."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from trireme_coordinator.auth import key_admin, key_file
from trireme_coordinator.auth.key_file import StoredKey
from trireme_coordinator.auth.quotas import Quota
from trireme_coordinator.auth.scopes import Scope
from trireme_proto.errors import ConfigurationError

keys = typer.Typer(
    help="Create, list and revoke API keys.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
File = Annotated[Path, typer.Option("--file", "--keys", metavar="FILE", help="The file of keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_FILE = Path("keys.json")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhd])")


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is; sessions and quotas belong to a tenant.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it allows; may be repeated. Default: generate, sessions."),
    ] = None,
    name: Annotated[str, typer.Option(help="A note for the list, such as the application's name.")] = "",
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it is good: 30m, 12h, 90d; never: for ever.")
    ] = "90d",
    requests: Annotated[int | None, typer.Option(help="Requests a minute of the tenant; 0: no bound.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens a minute of the tenant; 0: no bound.")] = None,
    streams: Annotated[int | None, typer.Option(help="Answers at once of the tenant; 0: no bound.")] = None,
    file: File = _FILE,
    as_json: AsJson = False,
) -> None:
    """Create a key. It is printed once: only its SHA-256 is kept.

    --requests, --tokens and --streams, where any is given, replace the quota that the tenant has in the file.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    given = (requests, tokens, streams)
    quota = Quota(*(value or 0 for value in given)) if any(value is not None for value in given) else None
    scopes = scope or [Scope.GENERATE, Scope.SESSIONS]
    stored, key = key_admin.create(file, tenant, scopes, now, name=name, expires=_until(expires, now), quota=quota)
    if as_json:
        print(json.dumps({"key": key, **_shown(stored, now)}))
        return
    print(key)
    until = f"until {stored.expires:%Y-%m-%d %H:%M} UTC" if stored.expires else "for ever"
    print(f"Key {stored.key_id} of tenant {tenant} is good {until}. It is not shown again.", file=sys.stderr)


@keys.command("list")
def list_(file: File = _FILE, as_json: AsJson = False) -> None:
    """List the keys: ids, tenants, scopes and times; nothing that opens anything."""
    held, now = key_file.read(file), datetime.now(UTC)
    rows = [_shown(key, now) for key in held.keys.values()]
    if as_json:
        quotas = {tenant: {f.name: getattr(q, f.name) for f in fields(q)} for tenant, q in held.quotas.items()}
        print(json.dumps({"keys": rows, "quotas": quotas}))
        return
    columns = ("id", "state", "tenant", "scopes", "expires", "name")
    table = [columns, *(tuple(_cell(row[column]) for column in columns) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `trireme keys list` shows it.")],
    file: File = _FILE,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: servers refuse it within a second or two. Answers under way go on to their end."""
    now = datetime.now(UTC).replace(microsecond=0)
    stored = key_admin.revoke(file, key_id, now)
    print(json.dumps(_shown(stored, now)) if as_json else f"Key {stored.key_id} is revoked.")


def _until(text: str, now: datetime) -> datetime | None:
    """When a key ends that is good for so long. ConfigurationError."""
    if text == "never":
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"expires is '{text[:40]}'; it must be such as 30m, 12h or 90d, or never.")
    return now + int(found[1]) * _UNITS[found[2]]


def _shown(key: StoredKey, now: datetime) -> dict[str, Any]:
    """What may be seen of a key: not even its digest."""
    state = "good" if key.good(now) else "revoked" if key.revoked else "expired"
    return {
        "id": key.key_id,
        "state": state,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "name": key.name,
        "created": key.created.isoformat(),
        "expires": key.expires and key.expires.isoformat(),
        "revoked": key.revoked and key.revoked.isoformat(),
    }


def _cell(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else value or "-"
