"""Tokens of an identity provider: what is accepted, and every way in which one is not."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from trireme_coordinator.auth import jwks
from trireme_coordinator.auth.identity import Identity
from trireme_coordinator.auth.jwks import KeySet
from trireme_coordinator.auth.scopes import Scope
from trireme_coordinator.auth.tokens import TokenRules, TokenVerifier
from trireme_proto.errors import ConfigurationError, Unavailable
from trireme_proto.limits import LIMITS

ISSUER, AUDIENCE = "https://idp.example", "trireme"
RULES = TokenRules(ISSUER, AUDIENCE)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
PUBLIC = {
    "RS256": json.loads(RSAAlgorithm.to_jwk(RSA.public_key())),
    "ES256": json.loads(ECAlgorithm.to_jwk(EC.public_key())),
    "EdDSA": json.loads(OKPAlgorithm.to_jwk(ED.public_key())),
}
SET = json.dumps({"keys": [key | {"kid": name, "use": "sig"} for name, key in PUBLIC.items()]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-1",
        "exp": int(time.time()) + 600,
        "tenant": "acme",
        "scope": "openid generate trireme:sessions",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def signed(payload: Mapping[str, Any], algorithm: str = "RS256", kid: str | None = None) -> str:
    return jwt.encode(dict(payload), PRIVATE[algorithm], algorithm, headers={"kid": kid or algorithm})


def verifier(rules: TokenRules = RULES, key_set: bytes = SET) -> TokenVerifier:
    return TokenVerifier(rules, KeySet(lambda: key_set))


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_good_token_tells_who_it_is_about(algorithm: str) -> None:
    found = await verifier().identify(signed(claims(), algorithm))
    assert found == Identity("acme", frozenset({Scope.GENERATE, Scope.SESSIONS}), "sub:user-1")


WRONG: dict[str, dict[str, Any]] = {
    "expired": {"exp": int(time.time()) - 60},
    "without an end": {"exp": None},
    "not yet": {"nbf": int(time.time()) + 86_400},  # long after this file was imported
    "of another issuer": {"iss": "https://other.example"},
    "without an issuer": {"iss": None},
    "for another audience": {"aud": "other"},
    "without an audience": {"aud": None},
    "about nobody": {"sub": None},
    "without a tenant": {"tenant": None},
    "of a tenant that is none": {"tenant": "a/b"},
    "of many tenants": {"tenant": ["acme"]},
    "with a long tenant": {"tenant": "a" * 65},
    "with an end that is none": {"exp": "tomorrow"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
async def test_a_token_is_refused(change: dict[str, Any]) -> None:
    assert await verifier().identify(signed(claims(**change))) is None


async def test_clocks_may_differ_a_little() -> None:
    late = signed(claims(exp=int(time.time()) - 10))
    assert await verifier().identify(late) is not None
    assert await verifier(TokenRules(ISSUER, AUDIENCE, leeway=0)).identify(late) is None


async def test_scopes_may_be_a_list_and_those_of_others_are_ignored() -> None:
    found = await verifier().identify(signed(claims(scope=["admin", "root", 5])))
    assert found is not None
    assert found.scopes == {Scope.ADMIN}
    nothing = await verifier().identify(signed(claims(scope=None)))
    assert nothing is not None
    assert nothing.scopes == frozenset()


async def test_claims_can_have_other_names() -> None:
    rules = TokenRules(ISSUER, AUDIENCE, tenant_claim="org", scope_claim="roles")
    found = await verifier(rules).identify(signed(claims(org="blue", roles=["cluster"])))
    assert found is not None
    assert (found.tenant, found.scopes) == ("blue", {Scope.CLUSTER})


async def test_what_is_public_signs_nothing() -> None:
    """The classic: a token signed by HMAC with the public key as its secret; and one that is not signed."""
    secret = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "RS256"}, claims())]
    body = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(secret, body, "sha256")).rstrip(b"=")
    confused = (body + b"." + mac).decode()
    unsigned = jwt.encode(claims(), None, "none", headers={"kid": "RS256"})
    for token in (confused, unsigned):
        assert await verifier().identify(token) is None


async def test_an_algorithm_that_is_not_allowed_is_refused_and_so_is_another_keys() -> None:
    assert await verifier(TokenRules(ISSUER, AUDIENCE, algorithms=("ES256",))).identify(signed(claims())) is None
    assert await verifier().identify(signed(claims(), "RS256", kid="ES256")) is None
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert await verifier().identify(jwt.encode(claims(), stranger, "RS256", headers={"kid": "RS256"})) is None


async def test_a_symmetric_key_in_a_public_set_opens_nothing() -> None:
    octets = {"kty": "oct", "kid": "RS256", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
    assert jwks.parse(json.dumps({"keys": [octets]}).encode()) == {}


@pytest.mark.parametrize("token", ["", ".", "a.b.c", "é", "x" * 8000, "." * 8000, signed(claims())[:-20]])
async def test_what_is_no_token_is_refused(token: str) -> None:
    assert await verifier().identify(token) is None


class Provider:
    """Counts how often it is asked."""

    def __init__(self, answer: bytes = SET) -> None:
        self.answer, self.asked, self.seconds = answer, 0, 0.0
        self.fails = False

    def read(self) -> bytes:
        self.asked += 1
        if self.fails:
            raise OSError
        return self.answer

    def keys(self) -> KeySet:
        return KeySet(self.read, monotonic=lambda: self.seconds)


async def test_keys_are_cached_and_read_again_in_time() -> None:
    provider = Provider()
    keys = provider.keys()
    for _ in range(10):
        assert await keys.key("RS256") is not None
    assert provider.asked == 1
    provider.seconds = 300
    await keys.key("RS256")
    assert provider.asked == 2


async def test_unknown_keys_make_nobody_ask_the_provider_all_the_time() -> None:
    provider = Provider()
    keys = provider.keys()
    for n in range(10_000):
        assert await keys.key(f"k{n}") is None
    assert provider.asked == 1
    provider.seconds = 31
    await keys.key("new")
    assert provider.asked == 2


async def test_while_the_provider_is_away_known_keys_stay(caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider()
    keys = provider.keys()
    await keys.key("RS256")
    provider.fails, provider.seconds = True, 1000
    assert await keys.key("RS256") is not None
    fresh = Provider()
    fresh.fails = True
    with pytest.raises(Unavailable):
        await fresh.keys().key("RS256")
    assert "could not be read" in caplog.text


NO_SETS = [b"", b"[]", b"{}", b'{"keys": 5}', b"[" * 200_000, json.dumps({"keys": [{}] * 65}).encode()]


@pytest.mark.parametrize("raw", NO_SETS)
def test_what_is_no_set_of_keys(raw: bytes) -> None:
    with pytest.raises(ValueError):
        jwks.parse(raw)


def test_a_set_is_bounded_and_comes_from_a_file_or_over_https(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(SET)
    assert len(jwks.parse(jwks.reader(str(file), ISSUER)())) == 3
    file.write_bytes(b" " * (LIMITS.jwks_bytes + 1))
    with pytest.raises(ValueError, match="too large"):
        jwks.reader(str(file), ISSUER)()
    for url in ("http://idp.example/keys", "file:///etc/passwd", "ftp://idp.example"):
        with pytest.raises(ConfigurationError, match="https"):
            jwks.reader(url, ISSUER)
    with pytest.raises(ConfigurationError, match="https"):
        jwks.reader("", "http://idp.example")


def test_rules_without_an_audience_or_with_shared_secrets_are_refused() -> None:
    for options in (("", AUDIENCE), (ISSUER, "")):
        with pytest.raises(ConfigurationError):
            TokenRules(*options)
    for algorithms in ((), ("HS256",), ("none",)):
        with pytest.raises(ConfigurationError):
            TokenRules(ISSUER, AUDIENCE, algorithms)
