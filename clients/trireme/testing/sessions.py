"""The fake server's `Sessions` service: checks, then the store."""
# ruff: noqa: N802, ARG002 - gRPC gives the methods their names and parameters

from __future__ import annotations

from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from trireme.testing import checks
from trireme.testing.handlers import scripted
from trireme.testing.model import FakeModel
from trireme.testing.script import Script
from trireme.testing.store import Conversation, Store
from trireme_proto import archive
from trireme_proto.archive import Archived
from trireme_proto.errors import InvalidRequest
from trireme_proto.v1 import sessions_pb2 as sessions
from trireme_proto.v1.sessions_pb2_grpc import SessionsServicer

_DAY = 24 * 3600
_PAGE = 100


class FakeSessions(SessionsServicer):
    """Sessions in a dict."""

    def __init__(self, store: Store, model: FakeModel, script: Script) -> None:
        self.script = script
        self._store = store
        self._model = model

    @scripted
    def Create(self, request: sessions.CreateSessionRequest, context: grpc.ServicerContext) -> sessions.Session:
        checks.session_ttl(request)
        return self._message(self._store.create(request.ttl_seconds or _DAY))

    @scripted
    def Get(self, request: sessions.GetSessionRequest, context: grpc.ServicerContext) -> sessions.Session:
        session = self._store.get(request.session_id)
        return self._message(session, with_tokens=request.include_tokens)

    @scripted
    def List(
        self, request: sessions.ListSessionsRequest, context: grpc.ServicerContext
    ) -> sessions.ListSessionsResponse:
        checks.list_sessions(request)
        try:
            start = int(request.page_token or 0)
        except ValueError:
            raise InvalidRequest("page_token is not one that the server gave.") from None
        end = start + (request.page_size if request.HasField("page_size") else _PAGE)
        every = self._store.newest_first()
        return sessions.ListSessionsResponse(
            sessions=map(self._message, every[start:end]), next_page_token=str(end) if end < len(every) else ""
        )

    @scripted
    def Delete(
        self, request: sessions.DeleteSessionRequest, context: grpc.ServicerContext
    ) -> sessions.DeleteSessionResponse:
        self._store.delete(request.session_id)
        return sessions.DeleteSessionResponse()

    @scripted
    def Fork(self, request: sessions.ForkSessionRequest, context: grpc.ServicerContext) -> sessions.Session:
        source, tokens = self._store.kept(request.session_id, request.at if request.HasField("at") else None)
        return self._message(self._store.create(round(source.ttl.total_seconds()), tokens))

    @scripted
    def Rewind(self, request: sessions.RewindSessionRequest, context: grpc.ServicerContext) -> sessions.Session:
        return self._message(self._store.rewind(request.session_id, request.at))

    @scripted
    def Export(
        self, request: sessions.ExportSessionRequest, context: grpc.ServicerContext
    ) -> sessions.ExportSessionResponse:
        session, tokens = self._store.kept(request.session_id)
        ttl = round(session.ttl.total_seconds())
        exported = Archived(self._model.name, self._model.pack_sha256, ttl, session.created, tuple(tokens))
        return sessions.ExportSessionResponse(archive=archive.to_bytes(exported))

    @scripted
    def Import(self, request: sessions.ImportSessionRequest, context: grpc.ServicerContext) -> sessions.Session:
        checks.session_ttl(request)
        imported, model = archive.from_bytes(request.archive), self._model
        archive.check_fits(
            imported,
            pack_sha256=model.pack_sha256,
            model=model.name,
            vocabulary=model.vocabulary,
            context=model.context,
        )
        ttl = request.ttl_seconds or imported.ttl_seconds
        return self._message(self._store.create(ttl, imported.token_ids, imported.created))

    def _message(self, session: Conversation, *, with_tokens: bool = False) -> sessions.Session:
        return sessions.Session(
            session_id=session.session_id,
            created=_timestamp(session.created),
            last_used=_timestamp(session.last_used),
            expires=_timestamp(session.expires),
            token_count=len(session.tokens),
            model=self._model.name,
            token_ids=session.tokens if with_tokens else (),
            missing_tokens=session.missing,
        )


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
