"""From a JWT of an identity provider to who it is about (RFC 7519; OpenID Connect for where the keys are).

The algorithm comes from a list of ours, never from the token alone: asymmetric ones, so that nobody can sign with what
is public. Issuer, audience and expiry must be there and be right. A token without a tenant opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from trireme_coordinator.auth.identity import Identity
from trireme_coordinator.auth.jwks import KeySet
from trireme_coordinator.auth.key_file import checked_tenant
from trireme_coordinator.auth.scopes import Scope
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""All that can be allowed. No HMAC, and not "none"."""
_SCOPE_PREFIX = "trireme:"
_SUBJECT_LENGTH = 128


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must be."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    leeway: int = 30
    """Seconds that clocks may differ by."""
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            raise ConfigurationError("jwt-issuer and jwt-audience belong together; neither may be empty.")
        if not self.algorithms or set(self.algorithms) - set(ALGORITHMS):
            raise ConfigurationError(f"jwt-algorithms must be some of {', '.join(ALGORITHMS)}.")


class TokenVerifier:
    """Checks tokens against rules and the provider's keys."""

    def __init__(self, rules: TokenRules, keys: KeySet) -> None:
        self._rules, self._keys = rules, keys
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True})

    async def identify(self, token: str) -> Identity | None:
        """Whom it is about; None where it is no good, for whichever reason. Unavailable where that cannot be told."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._rules.algorithms or not isinstance(kid := header.get("kid"), str):
                return None
            key = await self._keys.key(kid)
            return None if key is None else _identity(self._checked(token, key), self._rules)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None

    def _checked(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = self._jwt.decode(
            token,
            key,
            algorithms=list(self._rules.algorithms),
            audience=self._rules.audience,
            issuer=self._rules.issuer,
            leeway=self._rules.leeway,
            options={"require": ["exp", "iss", "aud", "sub"], "strict_aud": False},
        )
        return claims


def expires(token: str) -> datetime | None:
    """When a token that was found good ends."""
    claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["exp"], UTC)


def _identity(claims: Mapping[str, Any], rules: TokenRules) -> Identity | None:
    tenant, subject = claims.get(rules.tenant_claim), claims["sub"]
    if not isinstance(tenant, str):
        return None
    try:
        checked_tenant(tenant)
    except ConfigurationError:
        return None
    shown = subject if subject.isprintable() else ""
    return Identity(tenant, _scopes(claims.get(rules.scope_claim)), f"sub:{shown[:_SUBJECT_LENGTH]}")


def _scopes(claim: Any) -> frozenset[Scope]:
    """Words between spaces (RFC 8693), or a list; those that are not ours are somebody else's."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    names = {word.removeprefix(_SCOPE_PREFIX) for word in words[: LIMITS.jwks_keys] if isinstance(word, str)}
    return frozenset(map(Scope, names & set(Scope)))
