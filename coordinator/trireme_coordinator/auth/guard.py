"""In front of all services: finds out who calls, whether the method is open to them and within their quota, and notes
what came of it. Nothing of a refused call is parsed.

    open method?      go on            no credential, or none that is good     UNAUTHENTICATED
    scope missing?    PERMISSION_DENIED        quota used up?                  RESOURCE_EXHAUSTED, and when to come back
    not in the table  PERMISSION_DENIED, whoever asks

Why a credential is no good is never said: unknown, expired, revoked and malformed ones get the same sentence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from trireme_coordinator.auth.api_key import PREFIX
from trireme_coordinator.auth.audit import AuditLog, Event
from trireme_coordinator.auth.identity import ANONYMOUS, Caller, Identity, set_current
from trireme_coordinator.auth.quotas import Quotas
from trireme_coordinator.auth.scopes import COUNTED, HEALTH, REFLECTION, SCOPES, STREAMS, Scope
from trireme_proto.errors import InvalidRequest, PermissionDenied, TriremeError, Unauthenticated
from trireme_proto.limits import LIMITS
from trireme_proto.status import to_grpc

_SCHEME = "bearer "
_MISSING = "This server wants an API key or a token: none came with the call."
_NO_GOOD = "The API key or token that came with the call is not good here."
_NOT_OPEN = "This method is open to nobody."
_MALFORMED = object()
_STRANGER = Identity("", frozenset(), "")
_CODES: Mapping[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}

Behaviour = Callable[[Any, Any], Awaitable[Any]]
MAKERS = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}
"""By whether requests and responses are streams."""


class Keys(Protocol):
    """What knows API keys."""

    def identify(self, key: str) -> Identity | None:
        """Whose key it is; None where it is no good."""


class Tokens(Protocol):
    """What knows tokens."""

    async def identify(self, token: str) -> Identity | None:
        """Whom a token is about; None where it is no good."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call may show. Neither: no authentication is configured, and everybody is the default tenant."""

    keys: Keys | None = None
    tokens: Tokens | None = None

    @property
    def wanted(self) -> bool:
        """Whether calls have to show something."""
        return self.keys is not None or self.tokens is not None

    async def identify(self, metadata: Any) -> Identity:
        """Who calls. Unauthenticated."""
        if not self.wanted:
            return ANONYMOUS
        shown = [value for name, value in metadata or () if name == "authorization"]
        if not shown:
            raise Unauthenticated(_MISSING)
        found = await self._identity(_bearer(shown))
        if found is None:
            raise Unauthenticated(_NO_GOOD)
        return found

    async def _identity(self, credential: str) -> Identity | None:
        if not credential:
            return None
        if self.keys is not None and (self.tokens is None or credential.startswith(PREFIX)):
            return self.keys.identify(credential)
        return None if self.tokens is None else await self.tokens.identify(credential)


class Guard(grpc.aio.ServerInterceptor):
    """To be put before the door: who is not known here learns nothing of how the server is."""

    def __init__(
        self, credentials: Credentials, quotas: Quotas, audit: AuditLog | None = None, *, open_reflection: bool = False
    ) -> None:
        self._credentials, self._quotas, self._audit = credentials, quotas, audit
        self._open = HEALTH | (REFLECTION if open_reflection else frozenset())

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """GRPC asks for each call how it is to be handled."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method in self._open:
            return handler
        identity = _STRANGER
        try:
            identity = await self._credentials.identify(handler_call_details.invocation_metadata)
            _check_scope(identity, method)
        except TriremeError as error:
            return self._refusal(handler, method, identity, error)
        return handler if method in REFLECTION else self._let_in(handler, method, identity)

    def _let_in(self, handler: Any, method: str, identity: Identity) -> Any:
        maker, attribute = MAKERS[handler.request_streaming, handler.response_streaming]
        behaviour = self._counted(getattr(handler, attribute), method, identity)
        return maker(behaviour, _deserializer(handler.request_deserializer), handler.response_serializer)

    def _refusal(self, handler: Any, method: str, identity: Identity, error: TriremeError) -> Any:
        async def refuse(_request: Any, context: Any) -> None:
            self._note(method, Caller(identity), context, error.code.name, error.reason, 0.0)
            await context.abort(*to_grpc(error))

        maker, _ = MAKERS[handler.request_streaming, handler.response_streaming]
        return maker(refuse, None, None)

    def _counted(self, behaviour: Behaviour, method: str, identity: Identity) -> Behaviour:
        async def call(request: Any, context: Any) -> Any:
            tenant = identity.tenant
            caller = Caller(identity, on_tokens=lambda tokens: self._quotas.spent(tenant, tokens))
            started, code, reason, entered = time.monotonic(), "UNKNOWN", "", False
            set_current(caller)
            try:
                _check_parsed(request)
                entered = self._enter(method, tenant)
                answer = await behaviour(request, context)
                code = "OK"
            except TriremeError as error:  # the quota's; services abort with theirs
                code, reason = error.code.name, error.reason
                return await context.abort(*to_grpc(error))
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except BaseException:
                code = _code(context)
                raise
            finally:
                if entered:
                    self._quotas.left(tenant)
                self._note(method, caller, context, code, reason, time.monotonic() - started)
            return answer

        return call

    def _enter(self, method: str, tenant: str) -> bool:
        """Whether the call holds a place among the tenant's streams, to be given back. QuotaExceeded."""
        if SCOPES[method] in COUNTED:
            self._quotas.enter(tenant, stream=method in STREAMS)
        return method in STREAMS

    def _note(self, method: str, caller: Caller, context: Any, code: str, reason: str, seconds: float) -> None:
        if self._audit is not None:
            identity = caller.identity
            self._audit.add(
                Event(
                    method=method.removeprefix("/"),
                    tenant=identity.tenant,
                    subject=identity.subject,
                    peer=context.peer(),
                    result=code,
                    reason=reason,
                    seconds=round(seconds, 6),
                    tokens=caller.tokens,
                    trace_id=caller.trace_id,
                )
            )


def _deserializer(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The same, but bytes that are no message come through as such: gRPC itself would tell the caller in which class
    what went wrong.
    """

    def parsed(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return _MALFORMED

    return parsed


def _check_parsed(request: Any) -> None:
    if request is _MALFORMED:
        raise InvalidRequest("The request is no message of this method.")


def _bearer(shown: list[Any]) -> str:
    """The one credential that came; "" where it is no bearer's, too long, or one of several."""
    if len(shown) != 1 or not isinstance(shown[0], str) or len(shown[0]) > LIMITS.credential_bytes:
        return ""
    scheme, credential = shown[0][: len(_SCHEME)], shown[0][len(_SCHEME) :]
    return credential.strip() if scheme.lower() == _SCHEME else ""


def _check_scope(identity: Identity, method: str) -> None:
    if method in REFLECTION:
        return
    scope: Scope | None = SCOPES.get(method)
    if scope is None:
        raise PermissionDenied(_NOT_OPEN)
    if not identity.allows(scope):
        raise PermissionDenied(f"This API key or token does not allow this call: it lacks the scope {scope}.")


def _code(context: Any) -> str:
    """Name of the status of a call that was aborted."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")
