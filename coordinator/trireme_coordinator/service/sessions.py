"""The gate that lets one request at a time continue a session, and decides what happens without a session store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from trireme_coordinator.service.runs import Run
from trireme_coordinator.store import Loaded, Owner, RequestStore, SessionWriter, Start, new_session_id
from trireme_coordinator.store.records import new_record, utc_now
from trireme_coordinator.store.requests import Birth
from trireme_proto.errors import LeaseLost, SessionBusy, SessionNotFound, SessionStoreUnavailable

_SETTLE_SECONDS = 10.0
"""How long the end of an answer waits for a store that is slow, not away: the coordinator may die right after it."""
_FLUSH_SECONDS = 2.0
"""How long a caller waits for a store that is away, before it is told so."""


class SessionGate:
    """One request at a time on each session."""

    def __init__(
        self,
        store: RequestStore,
        writer: SessionWriter,
        ttl_seconds: int,
        owner: Owner | None = None,
        *,
        required: bool = False,
    ) -> None:
        """`owner`: who this coordinator is to the others. `required`: no work begins that the store does not know of.
        Else it begins without, and the store gets it, with its tokens, when it is back.
        """
        self.store, self.writer, self.ttl_seconds, self.required = store, writer, ttl_seconds, required
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
            await self.flush(session_id)
        return await self.store.load(session_id)

    async def load_or_make(self, session_id: str) -> Loaded:
        """The same, of a session that is made where there is none."""
        try:
            return await self.load(session_id)
        except SessionNotFound:
            await self.store.ensure(new_record(session_id, self.store.model, utc_now(), self.ttl_seconds))
            return await self.load(session_id)

    async def new(self) -> Loaded:
        """A new session. SessionStoreUnavailable."""
        try:
            return Loaded(await self.store.create(self.ttl_seconds), [], {}, 0, "")
        except SessionStoreUnavailable:
            if self.required:
                raise
        record = new_record(new_session_id(), self.store.model, utc_now(), self.ttl_seconds)
        return Loaded(record, [], {}, 0, "", stored=False)

    async def begin(self, loaded: Loaded, start: Start) -> bool:
        """Whether the store knows now of the work that begins; else it will hear of it with the first tokens.
        SessionBusy, SessionStoreUnavailable.
        """
        session_id, owner = loaded.record.session_id, self.owner.name
        try:
            if loaded.stored:
                await self.store.begin(session_id, owner, start)
                return True
        except SessionStoreUnavailable:
            if self.required:
                raise
        session = None if loaded.stored else loaded.record
        self.writer.begin(session_id, Birth(session, owner, replace(start, prompt=())))
        return False

    async def flush(self, session_id: str) -> None:
        """Waits, for a bounded time, until the store has all that there is of a session. SessionStoreUnavailable."""
        await self.writer.flush(session_id, _FLUSH_SECONDS)

    async def settle(self, session_id: str, seconds: float = _SETTLE_SECONDS) -> bool:
        """Whether an answer is stored, within a bounded time, so that a caller who saw its end can rely on it.

        A store that is away does not spoil the answer: the writer keeps trying, and the session's next request is told.
        """
        return await self.writer.settled(session_id, seconds)

    @contextmanager
    def claimed(self, session_id: str) -> Iterator[None]:
        """Marks a session as in use meanwhile. SessionBusy when it is."""
        self.claim(session_id)
        try:
            yield
        finally:
            self.release(session_id)

    async def delete(self, session_id: str) -> None:
        """Deletes a session that no request is running on."""
        with self.claimed(session_id):
            await self.flush(session_id)
            await self.store.delete(session_id)

    async def close(self) -> None:
        """Stops keeping sessions for this coordinator."""
        await self.owner.close()

    def _lost(self, session_id: str) -> None:
        if (run := self.running(session_id)) is not None:
            run.lost()
