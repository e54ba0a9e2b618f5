"""Who a call is from. The guard sets it for the duration of a call; services read it and never look at metadata.

Without authentication every call is from the one default tenant, which may do everything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from trireme_coordinator.auth.scopes import Scope
from trireme_coordinator.store.tenants import DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, once a key or token has shown it."""

    tenant: str
    """Name of the tenant; sessions, caches and quotas belong to it."""
    scopes: frozenset[Scope]
    subject: str
    """Who of the tenant: "key:ID", "sub:SUBJECT" or "anonymous". For the audit log; never a secret."""

    def allows(self, scope: Scope) -> bool:
        """Whether a method of this scope may be called."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANONYMOUS = Identity(DEFAULT_TENANT, frozenset(Scope), "anonymous")
"""Everybody, where no authentication is configured."""


@dataclass(eq=False, slots=True)
class Caller:
    """One call: who makes it, and what its service has found out about it."""

    identity: Identity = ANONYMOUS
    trace_id: str = ""
    """W3C trace id, once it is known."""
    tokens: int = 0
    """Tokens that the call has used so far."""
    on_tokens: Callable[[int], None] = lambda _: None
    """Told of tokens as they are used."""

    @property
    def tenant(self) -> str:
        """Name of the tenant."""
        return self.identity.tenant

    def used(self, tokens: int) -> None:
        """Notes that so many tokens of a prompt or an answer were used."""
        self.tokens += tokens
        self.on_tokens(tokens)


_caller: ContextVar[Caller] = ContextVar("trireme_caller")


def current() -> Caller:
    """Who makes the call that is being answered; the default tenant outside of one."""
    return _caller.get(None) or Caller()


def set_current(caller: Caller) -> None:
    """For the guard: the call that the running task answers from now on."""
    _caller.set(caller)
