"""What all sessions still have to have stored, bounded in bytes, and what was given up of it. Pure; knows no store.

Beyond the bound the oldest session's part is given up. What was stored of that session is a prefix of it: it is `cut`
until the store knows how many tokens are missing, so that nobody takes the prefix for the whole. Logs say how many
tokens, never which, and name no session.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from trireme_coordinator.store.backlog import TOKEN_BYTES, Backlog, Run
from trireme_coordinator.store.requests import Birth, End
from trireme_proto.errors import SessionStoreUnavailable, TriremeError

_log = logging.getLogger(__name__)

_SESSION_BYTES = 512
"""What a session in the backlog costs beside its tokens, about."""
_FAILURES = 4096
"""Most sessions of which a failure is remembered until somebody flushes, or a loss until the store knows it."""


@dataclass(slots=True)
class WriterCounters:
    """What happened since the start; only ever rises."""

    stored_tokens: int = 0
    retries: int = 0
    """Times that the store did not answer."""
    lost_sessions: int = 0
    """Sessions whose backlog was given up: it did not fit any more, or the store refused it for good."""
    lost_tokens: int = 0
    """Tokens that were put and will not be stored."""
    marked_sessions: int = 0
    """Times that the store was told that a session is incomplete."""


class Backlogs:
    """Backlogs by session, in order of age; about `limit` bytes at most."""

    def __init__(self, limit: int) -> None:
        self.counters = WriterCounters()
        self.limit = limit
        self.bytes = 0
        """Memory held, about."""
        self.sessions: dict[str, Backlog] = {}
        self.failures: dict[str, TriremeError] = {}
        """Of sessions that were given up, until somebody is told."""
        self.cut: dict[str, int] = {}
        """Sessions that were given up, and how many tokens each should have; the store is to know it."""
        self.unborn: dict[str, Birth] = {}
        """Sessions whose first token is still to come."""

    @property
    def empty(self) -> bool:
        """Whether the store is to be told nothing more."""
        return not self.sessions and not self.cut

    def begin(self, session_id: str, birth: Birth) -> None:
        """What goes with the first tokens of a session."""
        self.unborn[session_id] = birth

    def end(self, session_id: str) -> None:
        """There are no first tokens."""
        self.unborn.pop(session_id, None)

    def put(self, session_id: str, position: int, token_ids: Sequence[int], fence: int | None, end: End | None) -> None:
        """Adds tokens, and gives up the oldest where there is no room; of a session that was given up they are lost."""
        if session_id in self.failures or session_id in self.cut:
            self.lose(session_id, position, token_ids)
            return
        if session_id not in self.sessions:
            self.sessions[session_id] = Backlog(self.unborn.pop(session_id, None))
            self.bytes += _SESSION_BYTES
        self.sessions[session_id].add(position, token_ids, fence, end)
        self.bytes += len(token_ids) * TOKEN_BYTES
        while self.bytes > self.limit:
            oldest, backlog = self.oldest()
            self.cut_off(oldest, backlog)
            self.give_up(oldest, not_stored())

    def lose(self, session_id: str, position: int, token_ids: Sequence[int]) -> None:
        """Counts tokens that will not be stored."""
        self.counters.lost_tokens += len(token_ids)
        if session_id in self.cut:
            self.cut[session_id] = max(self.cut[session_id], position + len(token_ids))

    def oldest(self) -> tuple[str, Backlog]:
        """The session whose turn it is; there must be one."""
        return next(iter(self.sessions.items()))

    def stored(self, session_id: str, backlog: Backlog, run: Run) -> None:
        """A run of a session is stored; what else it has comes behind the others."""
        self.counters.stored_tokens += len(run.token_ids)
        backlog.wrote(run)
        if self.sessions.get(session_id) is not backlog:
            return  # given up while it was being written
        self.bytes -= len(run.token_ids) * TOKEN_BYTES
        del self.sessions[session_id]
        if backlog.pending:
            self.sessions[session_id] = backlog
        else:
            self.bytes -= _SESSION_BYTES

    def cut_off(self, session_id: str, backlog: Backlog) -> None:
        """The session will lack the rest of what was put, and the store is to know it."""
        self.cut[session_id] = max(self.cut.get(session_id, 0), backlog.end)
        if len(self.cut) > _FAILURES:
            del self.cut[next(iter(self.cut))]

    def marked(self, session_id: str, end: int) -> None:
        """The store knows that the session should have `end` tokens."""
        self.counters.marked_sessions += 1
        if self.cut.get(session_id) == end:
            del self.cut[session_id]

    def give_up(self, session_id: str, error: TriremeError, only: Backlog | None = None) -> None:
        """Drops a session's backlog (only that one, where given), and keeps the error where nobody waits for it."""
        backlog = self.sessions.get(session_id)
        if backlog is None or (only is not None and backlog is not only):
            return
        del self.sessions[session_id]
        self.bytes -= _SESSION_BYTES + backlog.waiting * TOKEN_BYTES
        self.counters.lost_sessions += 1
        self.counters.lost_tokens += backlog.waiting
        _log.warning("%d tokens of a session were not stored: %s", backlog.waiting, error.reason)
        if not backlog.fail(error) and session_id not in self.cut:
            self.failures[session_id] = error
            if len(self.failures) > _FAILURES:
                del self.failures[next(iter(self.failures))]

    def give_all_up(self, error: TriremeError) -> None:
        """Nobody will store any of it."""
        self.cut.clear()
        for session_id in list(self.sessions):
            self.give_up(session_id, error)


def not_stored() -> SessionStoreUnavailable:
    """The error of tokens that are not stored."""
    return SessionStoreUnavailable(
        "The session store does not answer; part of the session is not stored.", retry_after=1.0
    )
