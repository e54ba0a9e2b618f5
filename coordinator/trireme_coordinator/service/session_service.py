"""Sessions: create, get, list, delete, fork, rewind, export, import. Checks and translates; gate and store act."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from trireme_coordinator.auth.identity import current
from trireme_coordinator.engine import Engine
from trireme_coordinator.service import requests
from trireme_coordinator.service.calls import answered
from trireme_coordinator.service.session_copies import SessionCopies
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.store import SessionRecord
from trireme_coordinator.store.tenants import scoped, shown, tag
from trireme_proto.errors import InvalidRequest
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import sessions_pb2 as pb
from trireme_proto.v1.sessions_pb2_grpc import SessionsServicer

Context = grpc.aio.ServicerContext[Any, Any]


class SessionsService(SessionsServicer):
    """The public API of sessions."""

    def __init__(self, gate: SessionGate, engine: Engine) -> None:
        self._gate, self._store, self._engine = gate, gate.store, engine
        self._copies = SessionCopies(gate, engine.scheduler.config.context)

    @answered
    async def Create(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        return _message(await self._store.create(_ttl(request) or self._gate.ttl_seconds, tag=_tag()))

    @answered
    async def Get(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        name = _name(request.session_id)
        session = _message(await self._store.get(name))
        if request.include_tokens:
            session.token_ids.extend(await self._store.tokens(name, whole=False))
        return session

    @answered
    async def List(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """See the service's definition in sessions.proto."""
        size = request.page_size if request.HasField("page_size") else 100
        if not 1 <= size <= LIMITS.page_size:
            raise InvalidRequest(f"page_size is {size}; it must be 1 to {LIMITS.page_size}.")
        records, following = await self._store.list(size, request.page_token, _tag())
        return pb.ListSessionsResponse(sessions=[_message(r) for r in records], next_page_token=following)

    @answered
    async def Delete(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """See the service's definition in sessions.proto."""
        name = _name(request.session_id)
        await self._gate.delete(name)
        self._engine.forget(name)
        return pb.DeleteSessionResponse()

    @answered
    async def Fork(self, request: pb.ForkSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        at = request.at if request.HasField("at") else None
        return _message(await self._copies.fork(_name(request.session_id), at))

    @answered
    async def Rewind(self, request: pb.RewindSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        return _message(await self._copies.rewind(_name(request.session_id), request.at))

    @answered
    async def Export(self, request: pb.ExportSessionRequest, context: Context) -> pb.ExportSessionResponse:
        """See the service's definition in sessions.proto."""
        return pb.ExportSessionResponse(archive=await self._copies.export(_name(request.session_id)))

    @answered
    async def Import(self, request: pb.ImportSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        return _message(await self._copies.import_(request.archive, _ttl(request), _tag()))


def _name(session_id: str) -> str:
    """What the caller's session is called in the store. InvalidRequest, SessionNotFound."""
    requests.check_id("session_id", session_id)
    return scoped(current().tenant, session_id)


def _tag() -> str:
    """Of the caller's tenant."""
    return tag(current().tenant)


def _ttl(request: pb.CreateSessionRequest | pb.ImportSessionRequest) -> int | None:
    """The time to live that was asked for, if any. InvalidRequest."""
    if not request.HasField("ttl_seconds"):
        return None
    if not 1 <= request.ttl_seconds <= LIMITS.session_ttl_seconds:
        raise InvalidRequest(f"ttl_seconds is {request.ttl_seconds}; it must be 1 to {LIMITS.session_ttl_seconds}.")
    return request.ttl_seconds


def _message(record: SessionRecord) -> pb.Session:
    return pb.Session(
        session_id=shown(record.session_id),
        created=_timestamp(record.created),
        last_used=_timestamp(record.last_used),
        expires=_timestamp(record.expires),
        token_count=record.token_count,
        model=record.model,
        missing_tokens=record.missing,
    )


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
