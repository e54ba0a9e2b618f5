"""CVE-2025-59425: a key that is compared in variable time can be guessed byte by byte."""

from __future__ import annotations

import ast
import hmac
from datetime import UTC, datetime
from pathlib import Path

import pytest

import trireme_coordinator.auth as package
from trireme_coordinator.auth import api_key, key_admin
from trireme_coordinator.auth.key_ring import KeyRing

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SECRETS = {"sha256", "digest", "key", "credential", "token", "secret"}


def test_every_refusal_goes_through_one_comparison_of_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, key = key_admin.create(tmp_path / "keys", "acme", ["generate"], NOW)
    ring, compared = KeyRing(tmp_path / "keys", clock=lambda: NOW), []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return hmac_compare(left, right)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr("hmac.compare_digest", compare)
    unknown = api_key.new_key()[1]
    tries = ["", "x", unknown, key[:-1], key[:-7] + "0" * 7, key]
    assert [ring.identify(each) is not None for each in tries] == [False] * 5 + [True]
    assert compared == [(32, 32)] * len(tries), "some refusal took a shorter way"
    assert stored.sha256 == api_key.digest(key)


def test_nothing_compares_secrets_with_an_operator() -> None:
    """In the whole package: no == or != with a name that says it is a secret (checksums have their own function)."""
    for file in sorted(Path(next(iter(package.__path__))).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                names = {_name(each) for each in (node.left, *node.comparators)}
                assert not names & _SECRETS, f"{file.name}:{node.lineno}"


def _name(node: ast.expr) -> str:
    """The last name in an expression; "" where there is none. A slice of a key is its public part."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
