"""The sessions of the fake server: a dict with an order of use, expiry and one request at a time on each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trireme.testing.requests import Remembered
from trireme_proto.errors import SessionBusy, SessionNotFound


@dataclass(slots=True)
class Conversation:
    """One session."""

    session_id: str
    created: datetime
    last_used: datetime
    ttl: timedelta
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    requests: dict[str, Remembered] = field(default_factory=dict)

    @property
    def expires(self) -> datetime:
        return self.last_used + self.ttl


class Lease:
    """The right of one request to add to a session; given back once, later calls change nothing."""

    def __init__(self, session: Conversation, lock: threading.Lock) -> None:
        self.session = session
        self._lock = lock
        self._held = True

    def give_back(self, tokens: Iterable[int] = (), position: int | None = None) -> None:
        """Keeps what the request added, at a position (None: the end), and lets others in."""
        with self._lock:
            if self._held:
                self._held = self.session.busy = False
                if added := list(tokens):
                    self.session.tokens[len(self.session.tokens) if position is None else position :] = added


class Store:
    """All sessions. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, Conversation] = {}
        self._made = 0
        self._names: dict[str, str] = {}

    def named(self, request_id: str, *, make: Callable[[], Conversation] | None) -> Conversation:
        """The session that a request id was given; else one that is made. Raises SessionNotFound."""
        with self._lock:
            session_id = self._names.get(request_id, "")
        try:
            return self.get(session_id)
        except SessionNotFound:
            if make is None:
                raise
        session = make()
        with self._lock:
            self._names[request_id] = session.session_id
        return session

    def create(self, ttl_seconds: int) -> Conversation:
        with self._lock:
            self._made += 1
            now = self._clock()
            session = Conversation(f"fake-session-{self._made}", now, now, timedelta(seconds=ttl_seconds))
            self._kept[session.session_id] = session
            return session

    def get(self, session_id: str) -> Conversation:
        """Raises SessionNotFound."""
        with self._lock:
            return self._find(session_id)

    def newest_first(self) -> list[Conversation]:
        """Ordered by last use; those of one instant by when they were made."""
        with self._lock:
            alive = [session for session in reversed(self._kept.values()) if session.expires > self._clock()]
        return sorted(alive, key=lambda session: session.last_used, reverse=True)

    def delete(self, session_id: str) -> None:
        """Raises SessionNotFound, SessionBusy."""
        with self._lock:
            if self._find(session_id).busy:
                raise SessionBusy("A request is running on this session.")
            del self._kept[session_id]

    def claim(self, session_id: str) -> Lease:
        """For one request. Raises SessionNotFound, SessionBusy."""
        with self._lock:
            session = self._find(session_id)
            if session.busy:
                raise SessionBusy("Another request is running on this session.")
            session.busy, session.last_used = True, self._clock()
            return Lease(session, self._lock)

    def busy(self) -> int:
        """Requests running now."""
        with self._lock:
            return sum(session.busy for session in self._kept.values())

    def _find(self, session_id: str) -> Conversation:
        session = self._kept.get(session_id)
        if session is None or session.expires <= self._clock():
            raise SessionNotFound("There is no such session; it may have expired.")
        return session
