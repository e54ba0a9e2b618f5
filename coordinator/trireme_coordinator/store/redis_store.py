"""Sessions in Redis: the one file of the coordinator that imports redis.

Knows commands and round trips; what the values mean is layout.py's, what an append may do is splice.py's. Every call is
bounded in time. Whatever goes wrong with Redis becomes SessionStoreUnavailable, whose message holds no address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from trireme_coordinator.store import layout
from trireme_coordinator.store.records import (
    Clock,
    ModelIdentity,
    SessionRecord,
    check_pack,
    checked_id,
    checked_page_size,
    checked_ttl,
    new_session_id,
    not_found,
    utc_now,
)
from trireme_coordinator.store.redis_url import checked_url
from trireme_coordinator.store.splice import fresh_tokens
from trireme_proto.errors import ConfigurationError, SessionStoreUnavailable, TriremeError
from trireme_proto.limits import LIMITS

_CONNECTIONS = 16
"""Most connections; further calls wait for one, within their own bound."""
_ATTEMPTS = 5
"""Most times that an append starts again because somebody else wrote to the session meanwhile."""
_PRUNE = 100
"""Most expired ids taken out of the index each time a session is made: more than are added."""
_SKEW = timedelta(minutes=1)
"""Ids are taken out of the index this long after they expired: the clock of Redis may be behind ours."""

_Entries = list[tuple[bytes, int]]
"""Entries of the index: (session id as Redis gave it, microseconds)."""


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
        clock: Clock = utc_now,
        make_id: Callable[[], str] = new_session_id,
    ) -> None:
        """`url`: redis://, rediss:// or unix://; connects at the first call. ConfigurationError where it is no use."""
        self._client = Redis.from_pool(_pool(checked_url(url), timeout_seconds))
        self._timeout = timeout_seconds
        self._model = model
        self._clock = clock
        self._make_id = make_id

    async def create(self, ttl_seconds: int | None = None) -> SessionRecord:
        """An empty session. InvalidRequest, SessionStoreUnavailable."""
        ttl, now = checked_ttl(ttl_seconds), self._clock()
        record = SessionRecord(self._make_id(), now, now, 0, self._model.name, self._model.pack_sha256, ttl)
        async with self._answering():
            await self._prune()
            async with self._client.pipeline(transaction=True) as pipe:
                self._write(pipe, record)
                await pipe.execute()
        return record

    async def get(self, session_id: str) -> SessionRecord:
        """The facts about a session. SessionNotFound, SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._answering():
            return await self._record(self._client, session_id)

    async def tokens(self, session_id: str) -> list[int]:
        """All tokens. SessionNotFound, InvalidRequest (another pack's), SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._answering(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(layout.session_key(session_id))
            pipe.getrange(layout.tokens_key(session_id), 0, LIMITS.request_tokens * layout.TOKEN_BYTES - 1)
            fields, raw = await pipe.execute()
        if not fields:
            raise not_found()
        record = layout.from_hash(session_id, fields)
        check_pack(record.pack_sha256, self._model)
        return layout.unpack_tokens(raw, record.token_count, self._model.vocabulary)

    async def append(self, session_id: str, expected_count: int, token_ids: Sequence[int]) -> None:
        """Puts tokens at a known position. Internal, SessionNotFound, InvalidRequest, SessionStoreUnavailable."""
        checked_id(session_id)
        error: TriremeError = _unavailable()
        async with self._answering():
            for _ in range(_ATTEMPTS):
                async with self._client.pipeline(transaction=True) as pipe:
                    try:
                        return await self._try_append(pipe, session_id, expected_count, token_ids)
                    except WatchError:
                        error = _unavailable()
                    except _TornReadError:
                        error = layout.damaged()
        raise error

    async def list(self, page_size: int, page_token: str = "") -> tuple[list[SessionRecord], str]:
        """The most recently used first. InvalidRequest, SessionStoreUnavailable."""
        checked_page_size(page_size)
        before = layout.from_page_token(page_token) if page_token else None
        found: list[tuple[int, SessionRecord]] = []
        gone: list[bytes] = []
        async with self._answering():
            async for entries in self._index_from(before, page_size + 1):
                for (raw_id, score), record in zip(entries, await self._records(entries), strict=True):
                    if record is None:
                        gone.append(raw_id)
                    elif before is None or (score, record.session_id) < before:
                        found.append((score, record))
                if len(found) > page_size:
                    break
            await self._forget(gone)
        page = [record for _, record in found[:page_size]]
        more = len(found) > page_size
        return page, layout.to_page_token(found[page_size - 1][0], page[-1].session_id) if more else ""

    async def delete(self, session_id: str) -> None:
        """Forgets a session. SessionNotFound, SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._answering(), self._client.pipeline(transaction=True) as pipe:
            pipe.delete(layout.session_key(session_id))
            pipe.delete(layout.tokens_key(session_id), layout.requests_key(session_id), layout.owner_key(session_id))
            pipe.zrem(layout.INDEX_USED, session_id)
            pipe.zrem(layout.INDEX_EXPIRES, session_id)
            deleted, *_ = await pipe.execute()
        if not deleted:
            raise not_found()

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            async with self._answering():
                return bool(await _awaited(self._client.ping()))
        except SessionStoreUnavailable:
            return False

    async def close(self) -> None:
        """Gives back all connections."""
        await self._client.aclose()

    async def _try_append(self, pipe: Pipeline, session_id: str, expected_count: int, token_ids: Sequence[int]) -> None:
        key = layout.tokens_key(session_id)
        await pipe.watch(layout.session_key(session_id), key)
        record = await self._record(pipe, session_id)
        check_pack(record.pack_sha256, self._model)
        held = record.token_count
        if await _awaited(pipe.strlen(key)) != held * layout.TOKEN_BYTES:
            raise _TornReadError
        overlap: Sequence[int] = ()
        if (count := min(held - expected_count, len(token_ids))) > 0:
            start, end = expected_count * layout.TOKEN_BYTES, (expected_count + count) * layout.TOKEN_BYTES
            raw = await _awaited(pipe.getrange(key, start, end - 1))
            overlap = layout.unpack_tokens(raw, count, self._model.vocabulary)
        fresh = fresh_tokens(held, expected_count, token_ids, overlap, self._model.vocabulary)
        pipe.multi()  # type: ignore[no-untyped-call]
        if fresh:
            pipe.append(key, layout.pack_tokens(fresh))
        self._write(pipe, replace(record, last_used=self._clock(), token_count=held + len(fresh)))
        await pipe.execute()

    async def _record(self, client: Redis | Pipeline, session_id: str) -> SessionRecord:
        fields = await _awaited(client.hgetall(layout.session_key(session_id)))
        if not fields:
            raise not_found()
        return layout.from_hash(session_id, fields)

    def _write(self, pipe: Pipeline, record: SessionRecord) -> None:
        """Queues a record, its place in the index, and the expiry of both."""
        session_id = record.session_id
        pipe.hset(layout.session_key(session_id), mapping=layout.to_hash(record))
        pipe.zadd(layout.INDEX_USED, {session_id: layout.micros(record.last_used)})
        pipe.zadd(layout.INDEX_EXPIRES, {session_id: layout.micros(record.expires)})
        for key in (layout.session_key(session_id), layout.tokens_key(session_id)):
            pipe.pexpire(key, timedelta(seconds=record.ttl_seconds))
        for key in (layout.INDEX_USED, layout.INDEX_EXPIRES):
            pipe.pexpire(key, timedelta(seconds=LIMITS.session_ttl_seconds))

    async def _index_from(self, before: tuple[int, str] | None, count: int) -> AsyncIterator[_Entries]:
        """The index by last use, `count` entries at a time, from the score of `before` on."""
        offset, top = 0, "+inf" if before is None else str(before[0])
        while True:
            entries = await _awaited(
                self._client.zrange(
                    layout.INDEX_USED, top, "-inf", desc=True, byscore=True, offset=offset, num=count, withscores=True
                )
            )
            yield [(raw_id, int(score)) for raw_id, score in entries]
            offset += count
            if len(entries) < count:
                return

    async def _records(self, entries: _Entries) -> Sequence[SessionRecord | None]:
        """The records of the index entries; None where the session is gone or is none of ours."""
        async with self._client.pipeline(transaction=False) as pipe:
            for raw_id, _ in entries:
                pipe.hgetall(layout.session_key(raw_id.decode(errors="replace")))
            answers = await pipe.execute(raise_on_error=False)
        return [_listed(raw_id, fields) for (raw_id, _), fields in zip(entries, answers, strict=True)]

    async def _prune(self) -> None:
        now = layout.micros(self._clock() - _SKEW)
        await self._forget(
            await _awaited(
                self._client.zrange(layout.INDEX_EXPIRES, "-inf", str(now), byscore=True, offset=0, num=_PRUNE)
            )
        )

    async def _forget(self, raw_ids: Sequence[bytes]) -> None:
        """Takes ids whose sessions are gone out of the index."""
        if raw_ids:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.zrem(layout.INDEX_USED, *raw_ids)
                pipe.zrem(layout.INDEX_EXPIRES, *raw_ids)
                await pipe.execute()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Bounds what is inside in time, and turns every failure of Redis into SessionStoreUnavailable."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable() from error


def _pool(url: str, timeout_seconds: float) -> BlockingConnectionPool:
    """A bounded pool. It tries again once at once: a connection kept from before Redis restarted is no failure."""
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 1),
            driver_info=None,
        )
        pool.make_connection()  # type: ignore[no-untyped-call]  # connects nothing; finds options in the URL that there are not
    except (ValueError, TypeError, RedisError):
        raise ConfigurationError("The Redis URL is not one that can be used.") from None
    return pool


def _listed(raw_id: bytes, fields: Any) -> SessionRecord | None:
    """One entry of a listing; None where Redis has no session for it. A damaged one is left to `get` to tell."""
    try:
        session_id = checked_id(raw_id.decode("ascii", errors="replace"))
        return layout.from_hash(session_id, fields) if isinstance(fields, dict) else None
    except TriremeError:
        return None


async def _awaited(answer: Any) -> Any:
    """The answer to a command. redis types one client for both kinds of use, so that nothing is known of it here."""
    return await answer


def _unavailable() -> SessionStoreUnavailable:
    return SessionStoreUnavailable("The session store does not answer.")
