"""A session store in this process's memory, for tests and for trying things out. It keeps nothing on disk.

Behaves as the one on Redis does; one contract test suite runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from trireme_coordinator.store.layout import from_page_token, micros, to_page_token
from trireme_coordinator.store.records import (
    Clock,
    ModelIdentity,
    SessionRecord,
    check_pack,
    check_whole,
    checked_id,
    checked_page_size,
    checked_position,
    missing_tokens,
    named,
    new_record,
    new_session_id,
    not_found,
    tag_of,
    utc_now,
)
from trireme_coordinator.store.splice import fresh_tokens
from trireme_proto.errors import SessionStoreUnavailable


@dataclass(slots=True)
class _Session:
    record: SessionRecord
    tokens: list[int] = field(default_factory=list)


class MemorySessionStore:
    """A SessionStore in a dictionary. `answers = False` makes every call fail as a dead Redis would."""

    def __init__(
        self,
        model: ModelIdentity,
        *,
        clock: Clock = utc_now,
        make_id: Callable[[], str] = new_session_id,
    ) -> None:
        self.answers = True
        self._model = model
        self._clock = clock
        self._make_id = make_id
        self._sessions: dict[str, _Session] = {}

    @property
    def model(self) -> ModelIdentity:
        """The model being served."""
        return self._model

    async def create(
        self,
        ttl_seconds: int | None = None,
        token_ids: Sequence[int] = (),
        created: datetime | None = None,
        tag: str = "",
    ) -> SessionRecord:
        """A session that holds these tokens. InvalidRequest."""
        self._check_answers()
        record = new_record(named(tag, self._make_id()), self._model, self._clock(), ttl_seconds, created)
        tokens = list(fresh_tokens(0, 0, token_ids, (), self._model.vocabulary))
        record = replace(record, token_count=len(tokens))
        self._sessions[record.session_id] = _Session(record, tokens)
        return record

    async def ensure(self, record: SessionRecord) -> None:
        """An empty session of this id, unless it is there."""
        self._check_answers()
        self._forget_expired()
        now = self._clock()
        self._sessions.setdefault(record.session_id, _Session(replace(record, last_used=now, token_count=0)))

    async def get(self, session_id: str) -> SessionRecord:
        """The facts about a session. SessionNotFound."""
        return self._find(session_id).record

    async def tokens(self, session_id: str, *, whole: bool = True) -> list[int]:
        """All tokens. SessionNotFound, WrongModel, SessionIncomplete."""
        session = self._find(session_id)
        check_pack(session.record.pack_sha256, self._model)
        if whole:
            check_whole(session.record)
        return list(session.tokens)

    async def append(self, session_id: str, expected_count: int, token_ids: Sequence[int]) -> None:
        """Puts tokens at a known position. Internal, SessionNotFound, WrongModel, SessionIncomplete."""
        session = self._find(session_id)
        check_pack(session.record.pack_sha256, self._model)
        check_whole(session.record)
        overlap = session.tokens[expected_count : expected_count + len(token_ids)]
        session.tokens += fresh_tokens(len(session.tokens), expected_count, token_ids, overlap, self._model.vocabulary)
        session.record = replace(session.record, last_used=self._clock(), token_count=len(session.tokens))

    async def rewind(self, session_id: str, at: int) -> SessionRecord:
        """Keeps the first tokens. InvalidRequest, SessionNotFound, WrongModel."""
        session = self._find(session_id)
        check_pack(session.record.pack_sha256, self._model)
        del session.tokens[checked_position(at, len(session.tokens)) :]
        session.record = replace(session.record, last_used=self._clock(), token_count=at, missing=0)
        return session.record

    async def mark_incomplete(self, session_id: str, end: int) -> None:
        """Notes how many tokens there should be. SessionNotFound."""
        session = self._find(session_id)
        session.record = replace(session.record, missing=missing_tokens(session.record, end))

    async def list(self, page_size: int, page_token: str = "", tag: str = "") -> tuple[list[SessionRecord], str]:
        """The most recently used first. InvalidRequest."""
        self._check_answers()
        checked_page_size(page_size)
        before = from_page_token(page_token) if page_token else None
        self._forget_expired()
        own = ((micros(s.record.last_used), key) for key, s in self._sessions.items() if tag_of(key) == tag)
        ordered = sorted(own, reverse=True)
        rest = [entry for entry in ordered if before is None or entry < before]
        page = rest[:page_size]
        token = to_page_token(*page[-1]) if len(rest) > page_size else ""
        return [self._sessions[key].record for _, key in page], token

    async def delete(self, session_id: str) -> None:
        """Forgets a session. SessionNotFound."""
        del self._sessions[self._find(session_id).record.session_id]

    async def ping(self) -> bool:
        """Whether the store answers."""
        return self.answers

    async def close(self) -> None:
        """Nothing to give back."""

    def _find(self, session_id: str) -> _Session:
        self._check_answers()
        self._forget_expired()
        session = self._sessions.get(checked_id(session_id))
        if session is None:
            raise not_found()
        return session

    def _forget_expired(self) -> None:
        now = self._clock()
        for session_id in [key for key, s in self._sessions.items() if s.record.expires <= now]:
            del self._sessions[session_id]

    def _check_answers(self) -> None:
        if not self.answers:
            raise SessionStoreUnavailable("The session store does not answer.")
