"""Sessions in Redis.

Knows commands and round trips; listings are redis_index.py's, what the values mean is layout.py's, what an append may
do is splice.py's, connections and their failures are redis_link.py's. Every call is bounded in time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from trireme_coordinator.store import layout
from trireme_coordinator.store.health import Breaker
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
    utc_now,
)
from trireme_coordinator.store.redis_index import RedisIndex
from trireme_coordinator.store.redis_link import RedisLink, awaited, unavailable
from trireme_coordinator.store.splice import fresh_tokens
from trireme_proto.errors import SessionStoreUnavailable, TriremeError
from trireme_proto.limits import LIMITS

_ATTEMPTS = 5
"""Most times that a change starts again because somebody else wrote to the session meanwhile."""
_Change = Callable[[Pipeline, SessionRecord], Awaitable[SessionRecord]]
"""Reads what it needs of a watched session, calls `multi`, queues its commands; returns the record to write."""


class _TornReadError(Exception):
    """Count and tokens of a session do not fit: somebody wrote between the two reads, or the session is damaged."""


class RedisSessionStore:
    """A SessionStore on Redis >= 7 or Valkey. Must be made inside the running event loop."""

    def __init__(
        self,
        url: str,
        model: ModelIdentity,
        *,
        timeout_seconds: float = 2.0,
        breaker: Breaker | None = None,
        clock: Clock = utc_now,
        make_id: Callable[[], str] = new_session_id,
    ) -> None:
        """`url`: redis://, rediss:// or unix://; connects at the first call. ConfigurationError where it is no use."""
        self._link, self.url = RedisLink(url, timeout_seconds, breaker), url
        self._client = self._link.client
        self._index = RedisIndex(self._client)
        self._model = model
        self._clock = clock
        self._make_id = make_id

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
        """A session that holds these tokens. InvalidRequest, SessionStoreUnavailable."""
        record = new_record(named(tag, self._make_id()), self._model, self._clock(), ttl_seconds, created)
        tokens = fresh_tokens(0, 0, token_ids, (), self._model.vocabulary)
        async with self._link.answering():
            await self._index.prune(self._clock())
            async with self._client.pipeline(transaction=True) as pipe:
                return await self._put(pipe, record, layout.pack_tokens(tokens))

    async def ensure(self, record: SessionRecord) -> None:
        """An empty session of this id, unless it is there. SessionStoreUnavailable."""
        key = layout.session_key(checked_id(record.session_id))
        async with self._link.answering(), self._client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            if not await awaited(pipe.hgetall(key)):
                pipe.multi()  # type: ignore[no-untyped-call]
                with suppress(WatchError):  # somebody else has just made it
                    await self._put(pipe, replace(record, last_used=self._clock()), b"")

    async def get(self, session_id: str) -> SessionRecord:
        """The facts about a session. SessionNotFound, SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._link.answering():
            return await self._record(self._client, session_id)

    async def tokens(self, session_id: str, *, whole: bool = True) -> list[int]:
        """All tokens. SessionNotFound, WrongModel, SessionIncomplete, SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._link.answering(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(layout.session_key(session_id))
            pipe.getrange(layout.tokens_key(session_id), 0, LIMITS.request_tokens * layout.TOKEN_BYTES - 1)
            fields, raw = await pipe.execute()
        if not fields:
            raise not_found()
        record = layout.from_hash(session_id, fields)
        check_pack(record.pack_sha256, self._model)
        if whole:
            check_whole(record)
        return layout.unpack_tokens(raw, record.token_count, self._model.vocabulary)

    async def append(self, session_id: str, expected_count: int, token_ids: Sequence[int]) -> None:
        """Puts tokens at a known position. Internal, SessionNotFound, WrongModel, SessionIncomplete,
        SessionStoreUnavailable.
        """
        key = layout.tokens_key(session_id)

        async def change(pipe: Pipeline, record: SessionRecord) -> SessionRecord:
            check_whole(record)
            fresh = await self._fresh(pipe, record, expected_count, token_ids)
            pipe.multi()  # type: ignore[no-untyped-call]
            if fresh:
                pipe.append(key, layout.pack_tokens(fresh))
            return replace(record, token_count=record.token_count + len(fresh))

        await self._change(session_id, change)

    async def rewind(self, session_id: str, at: int) -> SessionRecord:
        """Keeps the first tokens. InvalidRequest, SessionNotFound, WrongModel, SessionStoreUnavailable."""
        key = layout.tokens_key(session_id)

        async def change(pipe: Pipeline, record: SessionRecord) -> SessionRecord:
            kept = checked_position(at, record.token_count) * layout.TOKEN_BYTES
            raw = await awaited(pipe.getrange(key, 0, kept - 1)) if kept else b""
            pipe.multi()  # type: ignore[no-untyped-call]
            self._set_tokens(pipe, session_id, raw)
            return replace(record, token_count=at, missing=0)

        return await self._change(session_id, change)

    async def mark_incomplete(self, session_id: str, end: int) -> None:
        """Notes how many tokens there should be. SessionNotFound, SessionStoreUnavailable."""

        async def change(pipe: Pipeline, record: SessionRecord) -> SessionRecord:
            pipe.multi()  # type: ignore[no-untyped-call]
            return replace(record, missing=missing_tokens(record, end))

        await self._change(session_id, change)

    async def list(self, page_size: int, page_token: str = "", tag: str = "") -> tuple[list[SessionRecord], str]:
        """The most recently used first. InvalidRequest, SessionStoreUnavailable."""
        checked_page_size(page_size)
        before = layout.from_page_token(page_token) if page_token else None
        async with self._link.answering():
            found = await self._index.page(tag, before, page_size + 1)
        page = [record for _, record in found[:page_size]]
        more = len(found) > page_size
        return page, layout.to_page_token(found[page_size - 1][0], page[-1].session_id) if more else ""

    async def delete(self, session_id: str) -> None:
        """Forgets a session. SessionNotFound, SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._link.answering(), self._client.pipeline(transaction=True) as pipe:
            pipe.delete(layout.session_key(session_id))
            pipe.delete(layout.tokens_key(session_id), layout.requests_key(session_id), layout.owner_key(session_id))
            self._index.remove(pipe, session_id)
            deleted, *_ = await pipe.execute()
        if not deleted:
            raise not_found()

    async def ping(self) -> bool:
        """Whether Redis answers, or did so when it was last asked a moment ago."""
        try:
            async with self._link.answering():
                return bool(await awaited(self._client.ping()))
        except SessionStoreUnavailable:
            return False

    async def close(self) -> None:
        """Gives back all connections."""
        await self._link.close()

    async def _change(self, session_id: str, change: _Change) -> SessionRecord:
        """Changes a session in one transaction, which starts again where somebody else wrote to it meanwhile."""
        checked_id(session_id)
        error: TriremeError = unavailable()
        async with self._link.answering():
            for _ in range(_ATTEMPTS):
                async with self._client.pipeline(transaction=True) as pipe:
                    try:
                        return await self._try_change(pipe, session_id, change)
                    except WatchError:
                        error = unavailable()
                    except _TornReadError:
                        error = layout.damaged()
        raise error

    async def _try_change(self, pipe: Pipeline, session_id: str, change: _Change) -> SessionRecord:
        key = layout.tokens_key(session_id)
        await pipe.watch(layout.session_key(session_id), key)
        record = await self._record(pipe, session_id)
        check_pack(record.pack_sha256, self._model)
        if await awaited(pipe.strlen(key)) != record.token_count * layout.TOKEN_BYTES:
            raise _TornReadError
        changed = replace(await change(pipe, record), last_used=self._clock())
        self._write(pipe, changed)
        await pipe.execute()
        return changed

    async def _fresh(
        self, pipe: Pipeline, record: SessionRecord, expected_count: int, token_ids: Sequence[int]
    ) -> Sequence[int]:
        """Those of the tokens that the session does not have yet. Internal."""
        held, overlap = record.token_count, list[int]()
        if (count := min(held - expected_count, len(token_ids))) > 0:
            start, end = expected_count * layout.TOKEN_BYTES, (expected_count + count) * layout.TOKEN_BYTES
            raw = await awaited(pipe.getrange(layout.tokens_key(record.session_id), start, end - 1))
            overlap = layout.unpack_tokens(raw, count, self._model.vocabulary)
        return fresh_tokens(held, expected_count, token_ids, overlap, self._model.vocabulary)

    async def _put(self, pipe: Pipeline, record: SessionRecord, raw: bytes) -> SessionRecord:
        """Writes a new session; `raw`: its tokens."""
        record = replace(record, token_count=len(raw) // layout.TOKEN_BYTES)
        self._set_tokens(pipe, record.session_id, raw)
        self._write(pipe, record)
        await pipe.execute()
        return record

    def _set_tokens(self, pipe: Pipeline, session_id: str, raw: bytes) -> None:
        if raw:
            pipe.set(layout.tokens_key(session_id), raw)
        else:
            pipe.delete(layout.tokens_key(session_id))

    async def _record(self, client: Redis | Pipeline, session_id: str) -> SessionRecord:
        fields = await awaited(client.hgetall(layout.session_key(session_id)))
        if not fields:
            raise not_found()
        return layout.from_hash(session_id, fields)

    def _write(self, pipe: Pipeline, record: SessionRecord) -> None:
        """Queues a record, its place in the index, and the expiry of both."""
        session_id = record.session_id
        pipe.hset(layout.session_key(session_id), mapping=layout.to_hash(record))
        for key in (layout.session_key(session_id), layout.tokens_key(session_id)):
            pipe.pexpire(key, timedelta(seconds=record.ttl_seconds))
        self._index.put(pipe, record)
