"""`trireme keys`: the key is shown once, and nothing that opens anything afterwards."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from trireme_coordinator.auth.key_ring import KeyRing
from trireme_coordinator.commands.keys import keys
from trireme_proto.errors import ConfigurationError


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(keys, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result.stdout


def test_create_list_and_revoke(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = run("create", "--tenant", "acme", "--file", file, "--name", "app").strip()
    made = json.loads(
        run("create", "--tenant", "blue", "--scope", "admin", "--expires", "never", "--file", file, "--json")
    )
    ring = KeyRing(file)
    assert ring.identify(key) is not None
    assert ring.identify(made["key"]) is not None
    table, listed = run("list", "--file", file), run("list", "--file", file, "--json")
    for text in (table, listed):
        assert key not in text
        assert made["key"] not in text
        assert "sha256" not in text
    rows = json.loads(listed)["keys"]
    assert [(row["tenant"], row["scopes"], row["state"], row["name"]) for row in rows] == [
        ("acme", ["generate", "sessions"], "good", "app"),
        ("blue", ["admin"], "good", ""),
    ]
    assert rows[0]["expires"] is not None
    assert rows[1]["expires"] is None
    assert "revoked" in run("revoke", rows[0]["id"], "--file", file)
    assert KeyRing(file).identify(key) is None
    assert json.loads(run("list", "--file", file, "--json"))["keys"][0]["state"] == "revoked"


def test_a_quota_is_the_tenants(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    run("create", "--tenant", "acme", "--file", file, "--requests", 10, "--streams", 2)
    run("create", "--tenant", "acme", "--file", file)
    quotas = json.loads(run("list", "--file", file, "--json"))["quotas"]
    assert quotas == {"acme": {"requests_per_minute": 10, "tokens_per_minute": 0, "streams": 2}}


def test_mistakes_are_typed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for args in (
        ["create", "--tenant", "a b", "--file", file],
        ["create", "--tenant", "a", "--file", file, "--expires", "soon"],
        ["create", "--tenant", "a", "--file", file, "--requests", "-1"],
        ["list", "--file", file],
        ["revoke", "0" * 12, "--file", file],
    ):
        result = CliRunner().invoke(keys, [str(arg) for arg in args])
        assert isinstance(result.exception, ConfigurationError), args
    assert not file.exists()
