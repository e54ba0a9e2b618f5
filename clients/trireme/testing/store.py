"""The sessions of the fake server: a dict with an order of use, expiry and one request at a time on each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trireme.testing.requests import Remembered
from trireme_proto.errors import InvalidRequest, SessionBusy, SessionIncomplete, SessionNotFound


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
    missing: int = 0
    """Tokens at its end that count as not stored."""

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

    def create(self, ttl_seconds: int, tokens: Sequence[int] = (), created: datetime | None = None) -> Conversation:
        with self._lock:
            self._made += 1
            now = self._clock()
            name, born = f"fake-session-{self._made}", min(created or now, now)
            session = Conversation(name, born, now, timedelta(seconds=ttl_seconds), list(tokens))
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

    def rewind(self, session_id: str, at: int) -> Conversation:
        """Raises SessionNotFound, SessionBusy, InvalidRequest."""
        with self._lock:
            session = self._find(session_id)
            if session.busy:
                raise SessionBusy("A request is running on this session.")
            del session.tokens[_position(session, at) :]
            session.last_used, session.missing = self._clock(), 0
            return session

    def kept(self, session_id: str, at: int | None = None) -> tuple[Conversation, list[int]]:
        """A session and its first `at` tokens; None: all. Raises SessionNotFound, SessionIncomplete, InvalidRequest."""
        with self._lock:
            session = self._find(session_id)
            if at is None:
                _check_whole(session)
            return session, session.tokens[: len(session.tokens) if at is None else _position(session, at)]

    def lose(self, session_id: str, count: int) -> None:
        """The session's last tokens count as not stored. Raises SessionNotFound, InvalidRequest."""
        with self._lock:
            session = self._find(session_id)
            del session.tokens[_position(session, len(session.tokens) - count) :]
            session.missing += count

    def claim(self, session_id: str) -> Lease:
        """For one request. Raises SessionNotFound, SessionBusy."""
        with self._lock:
            session = self._find(session_id)
            if session.busy:
                raise SessionBusy("Another request is running on this session.")
            _check_whole(session)
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


def _position(session: Conversation, at: int) -> int:
    if not 0 <= at <= len(session.tokens):
        raise InvalidRequest(f"at is {at}; the session has {len(session.tokens)} tokens.")
    return at


def _check_whole(session: Conversation) -> None:
    if session.missing:
        raise SessionIncomplete(
            f"The last {session.missing} tokens of this session were not stored; "
            f"rewind it to {len(session.tokens)} tokens or fewer."
        )
