"""The index of sessions in Redis: by last use for listings, by expiry so that it forgets what has expired.

Redis forgets expired sessions by itself, but not their entries here; those go when a session is made, or listed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from trireme_coordinator.store import layout
from trireme_coordinator.store.records import SessionRecord, checked_id, tag_of
from trireme_coordinator.store.redis_link import awaited
from trireme_proto.errors import TriremeError
from trireme_proto.limits import LIMITS

_PRUNE = 100
"""Most expired ids taken out of the index each time a session is made: more than are added."""
_SKEW = timedelta(minutes=1)
"""Ids are taken out of the index this long after they expired: the clock of Redis may be behind ours."""

_Entries = list[tuple[bytes, int]]
"""(session id as Redis gave it, microseconds)."""


class RedisIndex:
    """All methods raise what redis-py raises: the store turns it into errors of ours."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def put(self, pipe: Pipeline, record: SessionRecord) -> None:
        """Queues the entries of a session, and the expiry of the whole index."""
        used = layout.used_key(tag_of(record.session_id))
        pipe.zadd(used, {record.session_id: layout.micros(record.last_used)})
        pipe.zadd(layout.INDEX_EXPIRES, {record.session_id: layout.micros(record.expires)})
        for key in (used, layout.INDEX_EXPIRES):
            pipe.pexpire(key, timedelta(seconds=LIMITS.session_ttl_seconds))

    def remove(self, pipe: Pipeline, session_id: str) -> None:
        """Queues the end of a session's entries."""
        pipe.zrem(layout.used_key(tag_of(session_id)), session_id)
        pipe.zrem(layout.INDEX_EXPIRES, session_id)

    async def page(self, tag: str, before: tuple[int, str] | None, count: int) -> list[tuple[int, SessionRecord]]:
        """(microseconds, session) of a tenant's sessions after `before`, the most recently used first; at least `count`
        where there are so many. Entries without a session are forgotten.
        """
        found: list[tuple[int, SessionRecord]] = []
        gone: list[bytes] = []
        async for entries in self._from(layout.used_key(tag), before, count):
            for (raw_id, score), record in zip(entries, await self._records(entries), strict=True):
                if record is None:
                    gone.append(raw_id)
                elif before is None or (score, record.session_id) < before:
                    found.append((score, record))
            if len(found) >= count:
                break
        await self._forget(gone)
        return found

    async def prune(self, now: datetime) -> None:
        """Forgets some of the sessions that have expired."""
        until = str(layout.micros(now - _SKEW))
        expired = self._client.zrange(layout.INDEX_EXPIRES, "-inf", until, byscore=True, offset=0, num=_PRUNE)
        await self._forget(await awaited(expired))

    async def _from(self, key: str, before: tuple[int, str] | None, count: int) -> AsyncIterator[_Entries]:
        """By last use, `count` entries at a time, from the score of `before` on."""
        offset, top = 0, "+inf" if before is None else str(before[0])
        while True:
            entries = await awaited(
                self._client.zrange(
                    key, top, "-inf", desc=True, byscore=True, offset=offset, num=count, withscores=True
                )
            )
            yield [(raw_id, int(score)) for raw_id, score in entries]
            offset += count
            if len(entries) < count:
                return

    async def _records(self, entries: _Entries) -> Sequence[SessionRecord | None]:
        """None where the session is gone or is none of ours."""
        async with self._client.pipeline(transaction=False) as pipe:
            for raw_id, _ in entries:
                pipe.hgetall(layout.session_key(raw_id.decode(errors="replace")))
            answers = await pipe.execute(raise_on_error=False)
        return [_listed(raw_id, fields) for (raw_id, _), fields in zip(entries, answers, strict=True)]

    async def _forget(self, raw_ids: Sequence[bytes]) -> None:
        if raw_ids:
            async with self._client.pipeline(transaction=True) as pipe:
                for raw_id in raw_ids:
                    pipe.zrem(layout.used_key(_tag(raw_id)), raw_id)
                pipe.zrem(layout.INDEX_EXPIRES, *raw_ids)
                await pipe.execute()


def _tag(raw_id: bytes) -> str:
    """Of an entry; "" where it is none of ours, as of the default tenant."""
    try:
        return tag_of(checked_id(raw_id.decode("ascii", errors="replace")))
    except TriremeError:
        return ""


def _listed(raw_id: bytes, fields: Any) -> SessionRecord | None:
    """One entry of a listing; None where Redis has no session for it. A damaged one is left to `get` to tell."""
    try:
        session_id = checked_id(raw_id.decode("ascii", errors="replace"))
        return layout.from_hash(session_id, fields) if isinstance(fields, dict) else None
    except TriremeError:
        return None
