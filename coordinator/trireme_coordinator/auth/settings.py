"""The options of `serve` about who may call, and the guard that is made of them. Joins config.py; see options.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from trireme_coordinator.auth.audit import AuditLog
from trireme_coordinator.auth.guard import Credentials, Guard
from trireme_coordinator.auth.jwks import KeySet, reader
from trireme_coordinator.auth.key_ring import KeyRing
from trireme_coordinator.auth.quotas import MOST, Quota, Quotas
from trireme_coordinator.auth.tokens import TokenRules, TokenVerifier
from trireme_coordinator.options import text
from trireme_proto.errors import ConfigurationError

_HIGHEST = {"jwt_leeway": 300} | dict.fromkeys(("quota_requests", "quota_tokens", "quota_streams"), MOST)
REFLECTION = ("key", "open", "off")


@dataclass(frozen=True)
class KeysOptions:
    """A part of ServeConfig. Neither keys nor an issuer: nobody is asked who they are."""

    keys: str = field(default="", metadata=text("File of API keys, as `trireme keys create` makes it; changes count."))
    jwt_issuer: str = field(default="", metadata=text("URL of the identity provider whose tokens are good here."))
    jwt_audience: str = field(default="", metadata=text("Audience that its tokens must be for."))
    jwt_jwks: str = field(
        default="", metadata=text("File or https URL of its public keys. Default: found by OpenID Connect discovery.")
    )
    jwt_algorithms: str = field(
        default="RS256,ES256,EdDSA", metadata=text("Signatures that are accepted. Default: RS256,ES256,EdDSA.")
    )
    jwt_leeway: int = field(default=30, metadata=text("Seconds that clocks may differ by. Default: 30."))
    jwt_tenant_claim: str = field(default="tenant", metadata=text("Claim with the tenant's name. Default: tenant."))
    jwt_scope_claim: str = field(default="scope", metadata=text("Claim with the scopes. Default: scope."))
    quota_requests: int = field(
        default=0, metadata=text("Requests a minute of a tenant without a quota of its own. Default: 0, no bound.")
    )
    quota_tokens: int = field(
        default=0, metadata=text("Tokens a minute, of prompts and answers, of such a tenant. Default: 0, no bound.")
    )
    quota_streams: int = field(default=0, metadata=text("Answers at once of such a tenant. Default: 0, no bound."))
    audit_log: str = field(
        default="", metadata=text("File for one JSON line a call, without content; - for stdout. Default: none.")
    )
    reflection: str = field(
        default="key", metadata=text("Who may list the methods: key (who may call any), open or off. Default: key.")
    )


def check_keys(options: KeysOptions) -> None:
    """ConfigurationError where settings contradict each other or are out of their range."""
    if options.reflection not in REFLECTION:
        raise ConfigurationError(f"reflection is '{options.reflection}'; it must be one of {', '.join(REFLECTION)}.")
    for name, high in _HIGHEST.items():
        if not 0 <= getattr(options, name) <= high:
            raise ConfigurationError(f"{name.replace('_', '-')} is {getattr(options, name)}; it must be 0 to {high}.")
    if options.jwt_issuer or options.jwt_audience or options.jwt_jwks:
        _rules(options)
        reader(options.jwt_jwks, options.jwt_issuer)


def default_quota(options: KeysOptions) -> Quota:
    """Of tenants without one of their own. ConfigurationError."""
    return Quota(options.quota_requests, options.quota_tokens, options.quota_streams)


async def make_guard(options: KeysOptions, stack: AsyncExitStack, say: Callable[[str], None]) -> Guard:
    """The guard, whose files are read now. ConfigurationError where one of them is no use."""
    ring = KeyRing(Path(options.keys)) if options.keys else None
    tokens = await _verifier(options, say) if options.jwt_issuer else None
    audit = AuditLog(options.audit_log) if options.audit_log else None
    if audit is not None:
        stack.push_async_callback(asyncio.to_thread, audit.close)
    quota = default_quota(options)
    quotas = Quotas(lambda tenant: (ring.quota(tenant) if ring is not None else None) or quota)
    return Guard(Credentials(ring, tokens), quotas, audit, open_reflection=options.reflection == "open")


async def _verifier(options: KeysOptions, say: Callable[[str], None]) -> TokenVerifier:
    keys = KeySet(reader(options.jwt_jwks, options.jwt_issuer))
    if not await keys.refresh():
        if options.jwt_jwks and "://" not in options.jwt_jwks:
            raise ConfigurationError("The file given with --jwt-jwks cannot be read, or holds no public keys.")
        say("The identity provider's keys cannot be had yet: until then no token is good")
    return TokenVerifier(_rules(options), keys)


def _rules(options: KeysOptions) -> TokenRules:
    return TokenRules(
        issuer=options.jwt_issuer,
        audience=options.jwt_audience,
        algorithms=tuple(name.strip() for name in options.jwt_algorithms.split(",") if name.strip()),
        leeway=options.jwt_leeway,
        tenant_claim=options.jwt_tenant_claim,
        scope_claim=options.jwt_scope_claim,
    )
