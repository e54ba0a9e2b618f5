"""The gate that lets one request at a time continue a session, and decides what happens without a session store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from trireme_coordinator.service import requests
from trireme_coordinator.store import SessionRecord, SessionStore, SessionWriter
from trireme_coordinator.store.records import new_record, new_session_id, utc_now
from trireme_proto.errors import SessionBusy, SessionStoreUnavailable, TriremeError

_SETTLE_SECONDS = 1.0
_FLUSH_SECONDS = 2.0
"""How long a caller waits for a store that is away, before it is told so."""


@dataclass(slots=True)
class Held:
    """A session while a request runs on it."""

    session_id: str
    tokens: list[int]
    """What it held when the request began."""
    begun: bool = False
    """Set once work on the request has begun."""


class SessionGate:
    """One request at a time on each session."""

    def __init__(self, store: SessionStore, writer: SessionWriter, ttl_seconds: int, *, required: bool = False) -> None:
        """`required`: a conversation does not begin unless the store has it. Else it begins without, and the store gets
        it, with its tokens, when it is back.
        """
        self.store, self.writer, self.ttl_seconds = store, writer, ttl_seconds
        self._required = required
        self._busy: set[str] = set()

    @asynccontextmanager
    async def hold(self, session_id: str) -> AsyncIterator[Held]:
        """The session. SessionBusy, SessionNotFound, SessionIncomplete, SessionStoreUnavailable."""
        requests.check_id("session_id", session_id)
        with self.claimed(session_id):
            await self.flush(session_id)
            yield Held(session_id, await self.store.tokens(session_id))

    @asynccontextmanager
    async def hold_new(self) -> AsyncIterator[Held]:
        """A session of its own for a request; a request that is refused leaves none behind. SessionStoreUnavailable."""
        record, stored = await self._new()
        with self.claimed(record.session_id):
            held = Held(record.session_id, [])
            try:
                yield held
            finally:
                self.writer.end(record.session_id)
                if stored and not held.begun:
                    with suppress(TriremeError):  # it will expire
                        await self.store.delete(record.session_id)

    async def _new(self) -> tuple[SessionRecord, bool]:
        """A new session, and whether the store has it."""
        try:
            return await self.store.create(self.ttl_seconds), True
        except SessionStoreUnavailable:
            if self._required:
                raise
        record = new_record(new_session_id(), self.store.model, utc_now(), self.ttl_seconds)
        self.writer.begin(record)
        return record, False

    @contextmanager
    def claimed(self, session_id: str) -> Iterator[None]:
        """Marks a session as in use meanwhile. SessionBusy when it is."""
        if session_id in self._busy:
            raise SessionBusy("Another request is running on this session; wait until it ends.")
        self._busy.add(session_id)
        try:
            yield
        finally:
            self._busy.discard(session_id)

    async def flush(self, session_id: str) -> None:
        """Waits, for a bounded time, until the store has all that there is of a session. SessionStoreUnavailable."""
        await self.writer.flush(session_id, _FLUSH_SECONDS)

    async def settle(self, session_id: str, seconds: float = _SETTLE_SECONDS) -> bool:
        """Whether an answer is stored, within a bounded time, so that a caller who saw its end can rely on it.

        A store that is away does not spoil the answer: the writer keeps trying, and the session's next request is told.
        """
        return await self.writer.settled(session_id, seconds)

    async def delete(self, session_id: str) -> None:
        """Deletes a session that no request is running on."""
        with self.claimed(session_id):
            await self.flush(session_id)
            await self.store.delete(session_id)
