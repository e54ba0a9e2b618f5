"""Sessions: create, get, list, delete; and the gate that lets one request at a time continue a session."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from trireme_coordinator.engine import Engine
from trireme_coordinator.service import requests
from trireme_coordinator.service.calls import answered
from trireme_coordinator.service.runs import Run
from trireme_coordinator.store import Loaded, Owner, RequestStore, SessionRecord, SessionWriter
from trireme_proto.errors import InvalidRequest, LeaseLost, SessionBusy, SessionNotFound
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import sessions_pb2 as pb
from trireme_proto.v1.sessions_pb2_grpc import SessionsServicer

_SETTLE_SECONDS = 1.0
Context = grpc.aio.ServicerContext[Any, Any]


class SessionGate:
    """One request at a time on each session."""

    def __init__(
        self, store: RequestStore, writer: SessionWriter, ttl_seconds: int, owner: Owner | None = None
    ) -> None:
        """`owner`: who this coordinator is to the others."""
        self.store, self.writer, self.ttl_seconds = store, writer, ttl_seconds
        self.owner = owner or Owner(store)
        self._busy: dict[str, Run | None] = {}
        writer.on_lease_lost = self._lost

    def running(self, session_id: str) -> Run | None:
        """What is generated on a session here."""
        return self._busy.get(session_id)

    def claim(self, session_id: str) -> None:
        """Marks a session as in use. SessionBusy when it is."""
        if session_id in self._busy:
            raise SessionBusy("Another request is running on this session; wait until it ends.", retry_after=0.1)
        self._busy[session_id] = None

    def release(self, session_id: str) -> None:
        """Lets others in."""
        self._busy.pop(session_id, None)

    def began(self, run: Run) -> None:
        """A run is what its session is in use for."""
        self._busy[run.session_id] = run
        self.owner.keep(run.session_id, run.lost)

    async def load(self, session_id: str) -> Loaded:
        """A session that is claimed, all that was put for it stored. SessionNotFound, SessionStoreUnavailable."""
        with suppress(LeaseLost):  # what could not be stored was not to be
            await self.writer.flush(session_id)
        return await self.store.load(session_id)

    async def load_or_make(self, session_id: str) -> Loaded:
        """The same, of a session that is made where there is none."""
        try:
            return await self.load(session_id)
        except SessionNotFound:
            await self.store.make(session_id, self.ttl_seconds)
            return await self.load(session_id)

    async def settle(self, session_id: str) -> None:
        """Waits, for a bounded time, until an answer is stored, so that a caller who saw its end can rely on it.

        A store that is down does not spoil the answer: the writer keeps trying, and the session's next request is told.
        """
        await self.writer.settled(session_id, _SETTLE_SECONDS)

    async def delete(self, session_id: str) -> None:
        """Deletes a session that no request is running on."""
        self.claim(session_id)
        try:
            await self.writer.flush(session_id)
            await self.store.delete(session_id)
        finally:
            self.release(session_id)

    async def close(self) -> None:
        """Stops keeping sessions for this coordinator."""
        await self.owner.close()

    def _lost(self, session_id: str) -> None:
        if (run := self.running(session_id)) is not None:
            run.lost()


class SessionsService(SessionsServicer):
    """The public API of sessions."""

    def __init__(self, gate: SessionGate, engine: Engine) -> None:
        self._gate, self._store, self._engine = gate, gate.store, engine

    @answered
    async def Create(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        ttl = request.ttl_seconds if request.HasField("ttl_seconds") else self._gate.ttl_seconds
        if not 1 <= ttl <= LIMITS.session_ttl_seconds:
            raise InvalidRequest(f"ttl_seconds is {ttl}; it must be 1 to {LIMITS.session_ttl_seconds}.")
        return _message(await self._store.create(ttl))

    @answered
    async def Get(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        """See the service's definition in sessions.proto."""
        requests.check_id("session_id", request.session_id)
        session = _message(await self._store.get(request.session_id))
        if request.include_tokens:
            session.token_ids.extend(await self._store.tokens(request.session_id))
        return session

    @answered
    async def List(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """See the service's definition in sessions.proto."""
        size = request.page_size if request.HasField("page_size") else 100
        if not 1 <= size <= LIMITS.page_size:
            raise InvalidRequest(f"page_size is {size}; it must be 1 to {LIMITS.page_size}.")
        records, following = await self._store.list(size, request.page_token)
        return pb.ListSessionsResponse(sessions=[_message(r) for r in records], next_page_token=following)

    @answered
    async def Delete(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """See the service's definition in sessions.proto."""
        requests.check_id("session_id", request.session_id)
        await self._gate.delete(request.session_id)
        self._engine.forget(request.session_id)
        return pb.DeleteSessionResponse()


def _message(record: SessionRecord) -> pb.Session:
    return pb.Session(
        session_id=record.session_id,
        created=_timestamp(record.created),
        last_used=_timestamp(record.last_used),
        expires=_timestamp(record.expires),
        token_count=record.token_count,
        model=record.model,
    )


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
