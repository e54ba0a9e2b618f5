"""What is remembered of a session's requests, so that each is generated once however often it is sent. Pure.

    session tokens   [ earlier ... | prompt      | answer so far ... )
                                   ^ prompt_start ^ answer_start

A record is made together with its prompt. It is open until the answer's last tokens are stored; then it says how the
answer ended. Another request that begins while one is open cuts that one off: it can never be completed.

Whoever generates on a session has its fencing number, which rises with each who comes; an older number writes nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trireme_coordinator.store.layout import damaged
from trireme_coordinator.store.records import SessionRecord, SessionStore
from trireme_proto.limits import LIMITS

OPEN, CUT = "open", "cut"
"""Beside the names of finish reasons, the states of a record."""
LEASE_SECONDS = 3.0
"""How long an owner who is silent keeps a session."""
_RECORD = re.compile(
    rb"([0-9a-f]{64}) (0|[1-9][0-9]{0,7}) ([1-9][0-9]{0,7}) ([0-9]{1,20}) (open|cut|eos|stop|length|context)"
    rb" ([0-9]{1,8}) ([0-9]{1,8})"
)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request of a session. Positions count the session's tokens."""

    request_id: str
    content: str
    """SHA-256 of what was asked for, hexadecimal; without ids and seed."""
    prompt_start: int
    answer_start: int
    seed: int
    state: str = OPEN
    """OPEN, CUT, or why the answer ended: eos, stop, length, context."""
    answer_tokens: int = 0
    """Length of an answer that has ended."""
    cached_tokens: int = 0
    """Tokens of its prompt that were not computed again."""

    @property
    def complete(self) -> bool:
        """Whether the whole answer is in the session's tokens."""
        return self.state not in {OPEN, CUT}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A session with all that a request on it has to know, read at one moment."""

    record: SessionRecord
    tokens: list[int]
    requests: Mapping[str, RequestRecord]
    fence: int
    """The highest fencing number given out; 0 where no request ever ran."""
    owner: str
    """The coordinator that generates on it, or did until `LEASE_SECONDS` ago; "" where none does."""
    stored: bool = True
    """Whether the store has the session."""


@dataclass(frozen=True, slots=True)
class Start:
    """What is stored when work on a request begins, all of it or nothing."""

    seen: int
    """Fencing number of the session as it was loaded."""
    keep: int
    """Tokens of the session that stay; those behind belong to a request that never got one."""
    prompt: Sequence[int] = ()
    put: Sequence[RequestRecord] = ()
    forget: Sequence[str] = ()


class RequestStore(SessionStore, Protocol):
    """A store that also knows requests and owners. Each method may raise SessionStoreUnavailable."""

    async def name(self, request_id: str, session_id: str) -> str:
        """The session that a request id names: an earlier caller's, else `session_id` from now on."""
        ...

    async def load(self, session_id: str) -> Loaded:
        """SessionNotFound; InvalidRequest where the session belongs to another pack."""
        ...

    async def begin(self, session_id: str, owner: str, start: Start) -> int:
        """The fencing number under which to append. SessionNotFound; SessionBusy: somebody else began."""
        ...

    async def commit(
        self, session_id: str, fence: int, position: int, token_ids: Sequence[int], end: End | None = None
    ) -> None:
        """As `append`, under a fencing number; `end` comes with the last tokens. LeaseLost: a higher one was given."""
        ...

    async def renew(self, owner: str, session_ids: Sequence[str]) -> set[str]:
        """Keeps the sessions for `owner` for another `LEASE_SECONDS`; returns those that are somebody else's."""
        ...


@dataclass(frozen=True, slots=True)
class End:
    """Nobody generates on the session any more; `record`: the request's, where its answer is complete."""

    record: RequestRecord | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """A request that began while the store was away."""

    session: SessionRecord | None
    """The session, where the store does not know it either."""
    owner: str
    start: Start


def began(loaded: Loaded, birth: Birth) -> bool:
    """Whether a session is as `birth` has it begin: it was told to the store before, and the answer was lost.

    The owner's name goes by itself where the store was away for `LEASE_SECONDS`. Then the records tell: whoever wrote
    the same ones under this number generates the same tokens.
    """
    put = birth.start.put
    told = bool(put) and all(loaded.requests.get(record.request_id) == record for record in put)
    owned = loaded.owner == birth.owner or (not loaded.owner and told)
    return owned and loaded.fence == birth.start.seen + 1


def start_of(loaded: Loaded, record: RequestRecord, prompt: Sequence[int]) -> Start:
    """How a new request begins: it cuts off the one that is open and has old ones forgotten.

    `record.prompt_start` is `kept(loaded)`.
    """
    cut = [
        replace(open_, state=CUT, answer_tokens=max(0, record.prompt_start - open_.answer_start))
        for open_ in loaded.requests.values()
        if open_.state == OPEN
    ]
    oldest = sorted(loaded.requests.values(), key=lambda r: r.answer_start)
    forget = [old.request_id for old in oldest[: max(0, len(oldest) + 1 - LIMITS.session_requests)]]
    cut = [old for old in cut if old.request_id not in forget]
    return Start(loaded.fence, record.prompt_start, prompt, [*cut, record], forget)


def kept(loaded: Loaded) -> int:
    """Tokens that a new request goes on from: all but the prompt of one that is open and has no token of an answer."""
    count = len(loaded.tokens)
    return next(
        (r.prompt_start for r in loaded.requests.values() if r.state == OPEN and r.answer_start == count), count
    )


def rewound(records: Iterable[RequestRecord], at: int) -> list[RequestRecord]:
    """The records that change when a session keeps its first `at` tokens: what lies behind can never be completed."""
    return [
        replace(r, state=CUT)
        for r in records
        if r.state == OPEN or (r.complete and r.answer_start + r.answer_tokens > at)
    ]


def name_hash(request_id: str) -> str:
    """What stands for a request id in a key: ids are in logs, and who reads one there must not find its session."""
    return hashlib.sha256(request_id.encode()).hexdigest()


def to_bytes(record: RequestRecord) -> bytes:
    """The record as it is stored."""
    r = record
    return (
        f"{r.content} {r.prompt_start} {r.answer_start} {r.seed} {r.state} {r.answer_tokens} {r.cached_tokens}".encode()
    )


def from_bytes(request_id: bytes, raw: bytes) -> RequestRecord:
    """The record in some bytes. Internal where they are not those of `to_bytes`."""
    found = _RECORD.fullmatch(raw)
    if found is None or int(found[4]) >= 1 << 64 or int(found[2]) > int(found[3]):
        raise damaged()
    return RequestRecord(
        request_id=request_id.decode(errors="replace"),
        content=found[1].decode(),
        prompt_start=int(found[2]),
        answer_start=int(found[3]),
        seed=int(found[4]),
        state=found[5].decode(),
        answer_tokens=int(found[6]),
        cached_tokens=int(found[7]),
    )
