"""How long this client has seen its sessions: told to the server, which may have lost the end of one.

An answer ends before the session store has it where the store is away, and the coordinator may die right then. Whoever
goes on from there would go on from another conversation than the caller saw.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

_SESSIONS = 4096


class SessionLengths:
    """The lengths of the sessions used last, in tokens. Any thread may use it."""

    def __init__(self, most: int = _SESSIONS) -> None:
        self._most, self._lock = most, Lock()
        self._tokens: OrderedDict[str, int] = OrderedDict()

    def get(self, session_id: str) -> int | None:
        """Tokens after the session's last answer; None where that is not known."""
        with self._lock:
            return self._tokens.get(session_id)

    def note(self, session_id: str, tokens: int) -> None:
        """An answer ended, and so many tokens there are now."""
        with self._lock:
            self._tokens[session_id] = tokens
            self._tokens.move_to_end(session_id)
            if len(self._tokens) > self._most:
                self._tokens.popitem(last=False)

    def forget(self, session_id: str) -> None:
        """The session was made shorter, or the caller has been told that it is."""
        with self._lock:
            self._tokens.pop(session_id, None)
