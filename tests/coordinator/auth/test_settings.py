"""The options of `serve` about who may call."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.coordinator.auth.test_tokens import AUDIENCE, ISSUER, SET, claims, signed

from trireme_coordinator.auth import key_admin
from trireme_coordinator.auth.identity import ANONYMOUS
from trireme_coordinator.auth.settings import make_guard
from trireme_coordinator.config import ServeConfig, from_environment
from trireme_proto.errors import ConfigurationError, Unauthenticated

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def metadata(credential: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {credential}")]


async def test_keys_and_tokens_side_by_side(tmp_path: Path) -> None:
    _, key = key_admin.create(tmp_path / "keys.json", "acme", ["generate"], NOW)
    (tmp_path / "jwks.json").write_bytes(SET)
    environment = {
        "TRIREME_KEYS": str(tmp_path / "keys.json"),
        "TRIREME_JWT_ISSUER": ISSUER,
        "TRIREME_JWT_AUDIENCE": AUDIENCE,
        "TRIREME_JWT_JWKS": str(tmp_path / "jwks.json"),
        "TRIREME_AUDIT_LOG": str(tmp_path / "audit.jsonl"),
    }
    async with AsyncExitStack() as stack:
        guard = await make_guard(from_environment({}, environment), stack, print)
        identify = guard._credentials.identify
        assert (await identify(metadata(key))).tenant == "acme"
        assert (await identify(metadata(signed(claims(tenant="blue"))))).tenant == "blue"
        for wrong in (key[:-1] + "x", "x", signed(claims(aud="other"))):
            with pytest.raises(Unauthenticated):
                await identify(metadata(wrong))
    assert (tmp_path / "audit.jsonl").exists()


async def test_nothing_given_asks_nobody() -> None:
    async with AsyncExitStack() as stack:
        guard = await make_guard(ServeConfig(), stack, print)
        assert await guard._credentials.identify(()) is ANONYMOUS


@pytest.mark.parametrize(
    "options",
    [
        {"reflection": "yes"},
        {"jwt_leeway": 301},
        {"jwt_issuer": ISSUER},
        {"jwt_audience": AUDIENCE},
        {"jwt_jwks": "keys"},
        {"jwt_issuer": "http://idp.example", "jwt_audience": AUDIENCE},
        {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_algorithms": "HS256"},
        {"quota_streams": -1},
    ],
)
def test_contradictions_show_at_the_start(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        ServeConfig(**options)  # type: ignore[arg-type]


async def test_files_that_are_no_use_show_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "empty").chmod(0o600)
    for options in (
        {"keys": str(tmp_path / "none")},
        {"keys": str(tmp_path / "empty")},
        {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": str(tmp_path / "none")},
        {"audit_log": str(tmp_path / "none" / "log")},
    ):
        async with AsyncExitStack() as stack:
            with pytest.raises(ConfigurationError):
                await make_guard(ServeConfig(**options), stack, print)
