"""Requests and owners in Redis: one optimistic transaction for each change, no scripting.

    WATCH session, tokens, requests  ->  read  ->  MULTI  ->  change  ->  EXEC

The fencing number is a field of the requests' hash, under a name that no request id has. The owner's key expires by
itself and says no more than whom to wait for; what keeps two owners from writing is the number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from trireme_coordinator.store import layout
from trireme_coordinator.store.records import SessionRecord, check_pack, checked_id, checked_ttl, not_found
from trireme_coordinator.store.redis_store import RedisSessionStore
from trireme_coordinator.store.requests import (
    LEASE_SECONDS,
    End,
    Loaded,
    RequestRecord,
    Start,
    from_bytes,
    name_hash,
    to_bytes,
)
from trireme_coordinator.store.splice import fresh_tokens
from trireme_proto.errors import LeaseLost, SessionBusy, SessionStoreUnavailable
from trireme_proto.limits import LIMITS

T = TypeVar("T")
_ATTEMPTS = 5
_FENCE = b"#fence"
_LEASE = timedelta(seconds=LEASE_SECONDS)


class RedisRequestStore(RedisSessionStore):
    """A RequestStore on Redis >= 7 or Valkey."""

    async def name(self, request_id: str, session_id: str) -> str:
        """The session that a request id names. SessionStoreUnavailable."""
        async with self._answering():
            earlier = await self._client.set(
                layout.name_key(name_hash(request_id)),
                checked_id(session_id),
                nx=True,
                get=True,
                px=timedelta(seconds=LIMITS.request_name_seconds),
            )
        return checked_id(earlier.decode("ascii", errors="replace")) if isinstance(earlier, bytes) else session_id

    async def make(self, session_id: str, ttl_seconds: int) -> None:
        """An empty session of this id unless it is there. InvalidRequest, SessionStoreUnavailable."""
        ttl, now = checked_ttl(ttl_seconds), self._clock()
        record = SessionRecord(checked_id(session_id), now, now, 0, self._model.name, self._model.pack_sha256, ttl)

        async def change(pipe: Pipeline) -> None:
            if await _got(pipe.hgetall(layout.session_key(session_id))):
                return
            pipe.multi()  # type: ignore[no-untyped-call]
            self._write(pipe, record)
            await pipe.execute()

        await self._changed(session_id, change)

    async def load(self, session_id: str) -> Loaded:
        """SessionNotFound, InvalidRequest (another pack's), SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._answering(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(layout.session_key(session_id))
            pipe.getrange(layout.tokens_key(session_id), 0, LIMITS.request_tokens * layout.TOKEN_BYTES - 1)
            pipe.hgetall(layout.requests_key(session_id))
            pipe.get(layout.owner_key(session_id))
            fields, raw, requests, owner = await pipe.execute()
        if not fields:
            raise not_found()
        record = layout.from_hash(session_id, fields)
        check_pack(record.pack_sha256, self._model)
        tokens = layout.unpack_tokens(raw, record.token_count, self._model.vocabulary)
        found = [from_bytes(name, value) for name, value in requests.items() if name != _FENCE]
        owner = (owner or b"").decode("ascii", errors="replace")
        return Loaded(record, tokens, {r.request_id: r for r in found}, _fence(requests), owner)

    async def begin(self, session_id: str, owner: str, start: Start) -> int:
        """The fencing number. SessionNotFound, SessionBusy, SessionStoreUnavailable."""

        async def change(pipe: Pipeline) -> int:
            record = await self._record(pipe, session_id)
            if await self._current_fence(pipe, session_id) != start.seen:
                raise _somebody_began()
            key = layout.tokens_key(session_id)
            whole = start.keep == record.token_count
            held = await _got(pipe.getrange(key, 0, start.keep * layout.TOKEN_BYTES - 1)) if start.keep else b""
            pipe.multi()  # type: ignore[no-untyped-call]
            if not whole:
                pipe.set(key, held)
            if start.prompt:
                pipe.append(key, layout.pack_tokens(start.prompt))
            self._put(pipe, session_id, start.put, start.forget, start.seen + 1)
            pipe.set(layout.owner_key(session_id), owner, px=_LEASE)
            count = start.keep + len(start.prompt)
            self._write(pipe, replace(record, last_used=self._clock(), token_count=count))
            await pipe.execute()
            return start.seen + 1

        return await self._changed(session_id, change)

    async def commit(
        self, session_id: str, fence: int, position: int, token_ids: Sequence[int], end: End | None = None
    ) -> None:
        """As `append`, under a fencing number. LeaseLost, and what `append` raises."""

        async def change(pipe: Pipeline) -> None:
            record = await self._record(pipe, session_id)
            check_pack(record.pack_sha256, self._model)
            if await self._current_fence(pipe, session_id) != fence:
                raise LeaseLost("Another coordinator has taken over the session.")
            fresh = await self._fresh(pipe, record, position, token_ids)
            pipe.multi()  # type: ignore[no-untyped-call]
            if fresh:
                pipe.append(layout.tokens_key(session_id), layout.pack_tokens(fresh))
            if end is not None:
                pipe.delete(layout.owner_key(session_id))
                self._put(pipe, session_id, [end.record] if end.record is not None else [], (), fence)
            count = record.token_count + len(fresh)
            self._write(pipe, replace(record, last_used=self._clock(), token_count=count))
            await pipe.execute()

        await self._changed(session_id, change)

    async def renew(self, owner: str, session_ids: Sequence[str]) -> set[str]:
        """Keeps sessions for another while; returns those that are somebody else's. SessionStoreUnavailable."""
        keys = [layout.owner_key(checked_id(session_id)) for session_id in session_ids]
        async with self._answering():
            async with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.get(key)
                owners = await pipe.execute()
            async with self._client.pipeline(transaction=False) as pipe:
                for key, found in zip(keys, owners, strict=True):
                    if found is None:  # it lapsed, and nobody took it
                        pipe.set(key, owner, nx=True, px=_LEASE)
                    elif found == owner.encode():
                        pipe.pexpire(key, _LEASE)
                await pipe.execute()
        mine = (None, owner.encode())
        return {session_id for session_id, found in zip(session_ids, owners, strict=True) if found not in mine}

    async def _changed(self, session_id: str, change: Callable[[Pipeline], Awaitable[T]]) -> T:
        """Makes one change to a session, again where somebody else changed it meanwhile."""
        checked_id(session_id)
        keys = (layout.session_key(session_id), layout.tokens_key(session_id), layout.requests_key(session_id))
        async with self._answering():
            for _ in range(_ATTEMPTS):
                async with self._client.pipeline(transaction=True) as pipe:
                    try:
                        await pipe.watch(*keys)
                        return await change(pipe)
                    except WatchError:
                        continue
        raise SessionStoreUnavailable("The session store does not answer.")

    async def _current_fence(self, pipe: Pipeline, session_id: str) -> int:
        return _fence({_FENCE: await _got(pipe.hget(layout.requests_key(session_id), _FENCE.decode()))})

    async def _fresh(
        self, pipe: Pipeline, record: SessionRecord, position: int, token_ids: Sequence[int]
    ) -> Sequence[int]:
        overlap: Sequence[int] = ()
        if (count := min(record.token_count - position, len(token_ids))) > 0:
            start, end = position * layout.TOKEN_BYTES, (position + count) * layout.TOKEN_BYTES
            raw = await _got(pipe.getrange(layout.tokens_key(record.session_id), start, end - 1))
            overlap = layout.unpack_tokens(raw, count, self._model.vocabulary)
        return fresh_tokens(record.token_count, position, token_ids, overlap, self._model.vocabulary)

    def _put(
        self, pipe: Pipeline, session_id: str, put: Sequence[RequestRecord], forget: Sequence[str], fence: int
    ) -> None:
        key = layout.requests_key(session_id)
        fields: layout.Hash = {record.request_id: to_bytes(record) for record in put}
        pipe.hset(key, mapping=fields | {_FENCE: str(fence)})
        if forget:
            pipe.hdel(key, *forget)

    def _write(self, pipe: Pipeline, record: SessionRecord) -> None:
        super()._write(pipe, record)
        pipe.pexpire(layout.requests_key(record.session_id), timedelta(seconds=record.ttl_seconds))


def _fence(requests: Mapping[bytes, bytes | None]) -> int:
    raw = requests.get(_FENCE) or b"0"
    if not raw.isdigit():
        raise layout.damaged()
    return int(raw)


def _somebody_began() -> SessionBusy:
    return SessionBusy("Another request is running on this session; wait until it ends.", retry_after=0.1)


async def _got(answer: Any) -> Any:
    """The answer to a command, of which redis says no type."""
    return await answer
