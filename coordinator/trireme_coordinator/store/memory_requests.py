"""Requests and owners of the store in memory. Behaves as the one on Redis does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from trireme_coordinator.store.memory import MemorySessionStore
from trireme_coordinator.store.records import SessionRecord, check_pack, checked_id
from trireme_coordinator.store.requests import LEASE_SECONDS, End, Loaded, RequestRecord, Start, name_hash, rewound
from trireme_proto.errors import LeaseLost, SessionBusy
from trireme_proto.limits import LIMITS


@dataclass(slots=True)
class _Requests:
    """Of one session, as it was made at `created`: one that was made anew under the same id has none."""

    created: datetime
    records: dict[str, RequestRecord] = field(default_factory=dict)
    fence: int = 0
    owner: str = ""
    owned_until: datetime | None = None


@dataclass(slots=True)
class Shared:
    """What stores on the same sessions share beside them."""

    requests: dict[str, _Requests] = field(default_factory=dict)
    names: dict[str, tuple[str, datetime]] = field(default_factory=dict)


class MemoryRequestStore(MemorySessionStore):
    """A RequestStore in dictionaries."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As a MemorySessionStore."""
        super().__init__(*args, **options)
        self.shared = Shared()

    async def name(self, request_id: str, session_id: str) -> str:
        """The session that a request id names."""
        self._check_answers()
        now, key = self._clock(), name_hash(request_id)
        if key not in self.shared.names or self.shared.names[key][1] <= now:
            expires = now + timedelta(seconds=LIMITS.request_name_seconds)
            self.shared.names[key] = (checked_id(session_id), expires)
        return self.shared.names[key][0]

    async def load(self, session_id: str) -> Loaded:
        """SessionNotFound; InvalidRequest for another pack's."""
        tokens = await self.tokens(session_id, whole=False)
        found = self._requests(session_id)
        record = await self.get(session_id)
        return Loaded(record, tokens, dict(found.records), found.fence, self._owner(found))

    async def begin(self, session_id: str, owner: str, start: Start) -> int:
        """The fencing number. SessionNotFound, SessionBusy."""
        session, found = self._find(session_id), self._requests(session_id)
        if found.fence != start.seen:
            raise SessionBusy("Another request is running on this session; wait until it ends.", retry_after=0.1)
        session.tokens[start.keep :] = start.prompt
        session.record = replace(session.record, last_used=self._clock(), token_count=len(session.tokens), missing=0)
        found.records.update({record.request_id: record for record in start.put})
        for request_id in start.forget:
            found.records.pop(request_id, None)
        found.fence += 1
        self._own(found, owner)
        return found.fence

    async def commit(
        self, session_id: str, fence: int, position: int, token_ids: Sequence[int], end: End | None = None
    ) -> None:
        """As `append`, under a fencing number. LeaseLost."""
        self._find(session_id)
        found = self._requests(session_id)
        if found.fence != fence:
            raise LeaseLost("Another coordinator has taken over the session.")
        await self.append(session_id, position, token_ids)
        if end is not None:
            found.owner, found.owned_until = "", None
            if end.record is not None:
                found.records[end.record.request_id] = end.record

    async def rewind(self, session_id: str, at: int) -> SessionRecord:
        """As ever; and requests that reach behind it can never be completed, nor can anybody go on who generates."""
        record, found = await super().rewind(session_id, at), self._requests(session_id)
        found.records.update({r.request_id: r for r in rewound(found.records.values(), at)})
        found.fence += bool(found.fence)
        return record

    async def renew(self, owner: str, session_ids: Sequence[str]) -> set[str]:
        """Keeps sessions for another while; returns those that are somebody else's."""
        self._check_answers()
        lost = set()
        for session_id in session_ids:
            found = self.shared.requests.get(checked_id(session_id))
            if found is None:
                continue
            if self._owner(found) in {"", owner}:
                self._own(found, owner)
            else:
                lost.add(session_id)
        return lost

    def _requests(self, session_id: str) -> _Requests:
        session = self._find(session_id)
        check_pack(session.record.pack_sha256, self._model)
        found = self.shared.requests.get(session_id)
        if found is None or found.created != session.record.created:
            found = self.shared.requests[session_id] = _Requests(session.record.created)
        return found

    def _owner(self, found: _Requests) -> str:
        alive = found.owned_until is not None and found.owned_until > self._clock()
        return found.owner if alive else ""

    def _own(self, found: _Requests, owner: str) -> None:
        found.owner, found.owned_until = owner, self._clock() + timedelta(seconds=LEASE_SECONDS)
