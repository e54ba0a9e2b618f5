"""What a session is, and what every session store must do.

Knows no Redis. A session is a list of token ids with a few facts about it; it belongs to one packed model and is
forgotten after a time without use.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from trireme_proto.errors import InvalidRequest, SessionIncomplete, SessionNotFound, WrongModel
from trireme_proto.limits import LIMITS

Clock = Callable[[], datetime]
"""Returns the time now, with its zone (UTC)."""

DEFAULT_TTL_SECONDS = 24 * 3600
"""How long an unused session is kept where the caller does not say."""

_ID = re.compile(r"(?:([0-9a-f]{32})\.)?[A-Za-z0-9_-]+")
"""A tenant's tag, and what the caller sees; see tenants.py."""


def utc_now() -> datetime:
    """The clock of the machine."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The packed model whose token ids a store holds."""

    name: str
    pack_sha256: str
    """SHA-256 of the pack's manifest, hexadecimal."""
    vocabulary: int
    """Token ids are in [0, vocabulary)."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The facts about a session, without its tokens. All times are UTC."""

    session_id: str
    created: datetime
    last_used: datetime
    token_count: int
    model: str
    pack_sha256: str
    ttl_seconds: int
    """Seconds without use after which the session is forgotten."""
    missing: int = 0
    """Tokens at its end that could not be stored."""

    @property
    def expires(self) -> datetime:
        """When the session is forgotten unless it is used before."""
        return self.last_used + timedelta(seconds=self.ttl_seconds)


class SessionStore(Protocol):
    """Where sessions live. Each method may raise SessionStoreUnavailable."""

    @property
    def model(self) -> ModelIdentity:
        """The model whose sessions can be read and continued."""
        ...

    async def create(
        self,
        ttl_seconds: int | None = None,
        token_ids: Sequence[int] = (),
        created: datetime | None = None,
        tag: str = "",
    ) -> SessionRecord:
        """Makes a session of the tenant with this tag that holds `token_ids`, made at `created` (None: now).

        InvalidRequest where `ttl_seconds` is out of its range; None takes the default.
        """
        ...

    async def ensure(self, record: SessionRecord) -> None:
        """Makes an empty session of this id, time to live and time of its making, unless it is there already."""
        ...

    async def get(self, session_id: str) -> SessionRecord:
        """The facts about a session, of whichever model. SessionNotFound."""
        ...

    async def tokens(self, session_id: str, *, whole: bool = True) -> list[int]:
        """All tokens, in order. SessionNotFound; WrongModel where the session belongs to another pack.

        SessionIncomplete where some were not stored; with `whole` off, those that were.
        """
        ...

    async def append(self, session_id: str, expected_count: int, token_ids: Sequence[int]) -> None:
        """Puts tokens at position `expected_count`, all or none of them, and counts as use of the session.

        Idempotent: tokens that are already there at those positions are left alone. Internal where other tokens are
        there, or where the session holds fewer than `expected_count`. SessionNotFound; WrongModel, SessionIncomplete
        as `tokens`.
        """
        ...

    async def rewind(self, session_id: str, at: int) -> SessionRecord:
        """Keeps the first `at` tokens, and counts as use. What was missing is missing no longer.

        InvalidRequest where the session holds fewer. SessionNotFound; WrongModel as `tokens`.
        """
        ...

    async def mark_incomplete(self, session_id: str, end: int) -> None:
        """Notes that the session should have `end` tokens. Changes nothing where it has. SessionNotFound."""
        ...

    async def list(self, page_size: int, page_token: str = "", tag: str = "") -> tuple[list[SessionRecord], str]:
        """A page of the sessions of one tenant, the most recently used first, and the token of the next page ("" at
        the end).

        InvalidRequest where a token was not given out by a store, or the size is out of its range.
        """
        ...

    async def delete(self, session_id: str) -> None:
        """Forgets a session, of whichever model. SessionNotFound."""
        ...

    async def ping(self) -> bool:
        """Whether the store answers. Never raises for a store that does not."""
        ...

    async def close(self) -> None:
        """Gives back connections. The store is not used afterwards."""
        ...


def new_session_id() -> str:
    """128 random bits, hexadecimal: no id begins with "-" as an option does. Whoever knows it may use the session."""
    return secrets.token_hex(16)


def named(tag: str, session_id: str) -> str:
    """The name of a session in the store: its id, behind the tag of its tenant, if that has one."""
    return f"{tag}.{session_id}" if tag else session_id


def tag_of(name: str) -> str:
    """The tag in a session's name."""
    return name.rpartition(".")[0]


def new_record(
    session_id: str,
    model: ModelIdentity,
    now: datetime,
    ttl_seconds: int | None = None,
    created: datetime | None = None,
) -> SessionRecord:
    """The facts about an empty session that is made now; `created` is never later than that. InvalidRequest."""
    ttl = checked_ttl(ttl_seconds)
    return SessionRecord(session_id, min(created or now, now), now, 0, model.name, model.pack_sha256, ttl)


def missing_tokens(record: SessionRecord, end: int) -> int:
    """Tokens that a session which should have `end` of them lacks, those known before included."""
    return max(record.missing, min(end, LIMITS.request_tokens) - record.token_count, 0)


def checked_id(session_id: str) -> str:
    """The id itself. SessionNotFound where it has a form that no id has, so that none reaches a key."""
    if len(session_id) > LIMITS.id_length or not _ID.fullmatch(session_id):
        raise not_found()
    return session_id


def checked_ttl(ttl_seconds: int | None) -> int:
    """Seconds to keep an unused session. InvalidRequest outside of [1, LIMITS.session_ttl_seconds]."""
    if ttl_seconds is None:
        return DEFAULT_TTL_SECONDS
    if not 1 <= ttl_seconds <= LIMITS.session_ttl_seconds:
        raise InvalidRequest(f"ttl_seconds must be from 1 to {LIMITS.session_ttl_seconds}.")
    return ttl_seconds


def checked_page_size(page_size: int) -> int:
    """The size itself. InvalidRequest outside of [1, LIMITS.page_size]."""
    if not 1 <= page_size <= LIMITS.page_size:
        raise InvalidRequest(f"page_size must be from 1 to {LIMITS.page_size}.")
    return page_size


def check_pack(pack_sha256: str, model: ModelIdentity) -> None:
    """WrongModel where a session was made with another pack: its token ids would mean other text."""
    if pack_sha256 != model.pack_sha256:
        raise WrongModel("session_id: the session was made with another model than the one being served.")


def check_whole(record: SessionRecord) -> None:
    """SessionIncomplete where a part of the session was not stored."""
    if record.missing:
        raise SessionIncomplete(
            f"The last {record.missing} tokens of this session were not stored, because the session store was away; "
            f"rewind it to {record.token_count} tokens or fewer to go on from there."
        )


def checked_position(at: int, token_count: int) -> int:
    """The position itself. InvalidRequest outside of [0, token_count]."""
    if not 0 <= at <= token_count:
        raise InvalidRequest(f"at is {at}; the session has {token_count} tokens.")
    return at


def not_found() -> SessionNotFound:
    """The one sentence for a session that is not there (any more)."""
    return SessionNotFound("There is no such session, or it has expired.")
