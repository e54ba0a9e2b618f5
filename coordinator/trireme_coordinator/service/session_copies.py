"""Fork, rewind, export and import: what can be done with a session besides continuing it.

Knows stores and archives, not gRPC. Keys and values are not its business: the scheduler goes on from those that it
holds only as far as they are of the very tokens that a request begins with, whatever the session's id.
"""

from __future__ import annotations

from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.store.records import SessionRecord, checked_position, tag_of
from trireme_proto import archive
from trireme_proto.archive import Archived


class SessionCopies:
    """Works on the sessions behind a gate."""

    def __init__(self, gate: SessionGate, context: int) -> None:
        """`context`: most tokens of a session that this server can hold."""
        self._gate, self._store, self._context = gate, gate.store, context

    async def fork(self, session_id: str, at: int | None) -> SessionRecord:
        """A new session of the first `at` tokens (None: all that are there now). InvalidRequest, SessionIncomplete."""
        await self._gate.flush(session_id)
        record = await self._store.get(session_id)
        tokens = await self._store.tokens(session_id, whole=at is None)
        kept = len(tokens) if at is None else checked_position(at, len(tokens))
        return await self._store.create(record.ttl_seconds, tokens[:kept], tag=tag_of(session_id))

    async def rewind(self, session_id: str, at: int) -> SessionRecord:
        """Keeps the first `at` tokens. InvalidRequest, SessionBusy."""
        with self._gate.claimed(session_id):
            await self._gate.flush(session_id)
            return await self._store.rewind(session_id, at)

    async def export(self, session_id: str) -> bytes:
        """The session as an archive. SessionIncomplete."""
        await self._gate.flush(session_id)
        record = await self._store.get(session_id)
        tokens = await self._store.tokens(session_id)
        return archive.to_bytes(
            Archived(record.model, record.pack_sha256, record.ttl_seconds, record.created, tuple(tokens))
        )

    async def import_(self, data: bytes, ttl_seconds: int | None, tag: str = "") -> SessionRecord:
        """A new session, of the tenant with this tag, of an archive. ArchiveDamaged, WrongModel, InvalidRequest."""
        session, model = archive.from_bytes(data), self._store.model
        archive.check_fits(
            session,
            pack_sha256=model.pack_sha256,
            model=model.name,
            vocabulary=model.vocabulary,
            context=self._context,
        )
        ttl = session.ttl_seconds if ttl_seconds is None else ttl_seconds
        return await self._store.create(ttl, session.token_ids, session.created, tag)
