"""Requests and owners in Redis: one optimistic transaction for each change, no scripting.

    WATCH session, tokens  ->  read  ->  MULTI  ->  change  ->  EXEC

The fencing number is a field of the requests' hash, under a name that no request id has. The owner's key expires by
itself and says no more than whom to wait for; what keeps two owners from writing is the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from redis.asyncio.client import Pipeline

from trireme_coordinator.store import layout
from trireme_coordinator.store.records import (
    SessionRecord,
    check_pack,
    check_whole,
    checked_id,
    checked_position,
    not_found,
)
from trireme_coordinator.store.redis_link import awaited
from trireme_coordinator.store.redis_store import RedisSessionStore
from trireme_coordinator.store.requests import (
    LEASE_SECONDS,
    End,
    Loaded,
    RequestRecord,
    Start,
    from_bytes,
    name_hash,
    rewound,
    to_bytes,
)
from trireme_proto.errors import LeaseLost, SessionBusy
from trireme_proto.limits import LIMITS

_FENCE = b"#fence"
_LEASE = timedelta(seconds=LEASE_SECONDS)


class RedisRequestStore(RedisSessionStore):
    """A RequestStore on Redis >= 7 or Valkey."""

    async def name(self, request_id: str, session_id: str) -> str:
        """The session that a request id names. SessionStoreUnavailable."""
        async with self._link.answering():
            earlier = await self._client.set(
                layout.name_key(name_hash(request_id)),
                checked_id(session_id),
                nx=True,
                get=True,
                px=timedelta(seconds=LIMITS.request_name_seconds),
            )
        return checked_id(earlier.decode("ascii", errors="replace")) if isinstance(earlier, bytes) else session_id

    async def load(self, session_id: str) -> Loaded:
        """SessionNotFound, InvalidRequest (another pack's), SessionStoreUnavailable."""
        checked_id(session_id)
        async with self._link.answering(), self._client.pipeline(transaction=True) as pipe:
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
        found = _records(requests)
        owner = (owner or b"").decode("ascii", errors="replace")
        return Loaded(record, tokens, {r.request_id: r for r in found}, _fence(requests), owner)

    async def begin(self, session_id: str, owner: str, start: Start) -> int:
        """The fencing number. SessionNotFound, SessionBusy, SessionStoreUnavailable."""

        async def change(pipe: Pipeline, record: SessionRecord) -> SessionRecord:
            if await self._current_fence(pipe, session_id) != start.seen:
                raise _somebody_began()
            key = layout.tokens_key(session_id)
            whole = start.keep == record.token_count
            held = await awaited(pipe.getrange(key, 0, start.keep * layout.TOKEN_BYTES - 1)) if start.keep else b""
            pipe.multi()  # type: ignore[no-untyped-call]
            if not whole:
                self._set_tokens(pipe, session_id, held)
            if start.prompt:
                pipe.append(key, layout.pack_tokens(start.prompt))
            self._put_records(pipe, session_id, start.put, start.seen + 1, start.forget)
            pipe.set(layout.owner_key(session_id), owner, px=_LEASE)
            return replace(record, token_count=start.keep + len(start.prompt), missing=0)

        await self._change(session_id, change)
        return start.seen + 1

    async def commit(
        self, session_id: str, fence: int, position: int, token_ids: Sequence[int], end: End | None = None
    ) -> None:
        """As `append`, under a fencing number. LeaseLost, and what `append` raises."""

        async def change(pipe: Pipeline, record: SessionRecord) -> SessionRecord:
            if await self._current_fence(pipe, session_id) != fence:
                raise LeaseLost("Another coordinator has taken over the session.")
            check_whole(record)
            fresh = await self._fresh(pipe, record, position, token_ids)
            pipe.multi()  # type: ignore[no-untyped-call]
            if fresh:
                pipe.append(layout.tokens_key(session_id), layout.pack_tokens(fresh))
            if end is not None:
                pipe.delete(layout.owner_key(session_id))
                self._put_records(pipe, session_id, [end.record] if end.record is not None else [], fence)
            return replace(record, token_count=record.token_count + len(fresh))

        await self._change(session_id, change)

    async def rewind(self, session_id: str, at: int) -> SessionRecord:
        """As ever; and requests that reach behind it can never be completed, nor can anybody go on who generates."""
        key, requests = layout.tokens_key(session_id), layout.requests_key(session_id)

        async def change(pipe: Pipeline, record: SessionRecord) -> SessionRecord:
            kept = checked_position(at, record.token_count) * layout.TOKEN_BYTES
            raw = await awaited(pipe.getrange(key, 0, kept - 1)) if kept else b""
            fields = await awaited(pipe.hgetall(requests))
            pipe.multi()  # type: ignore[no-untyped-call]
            self._set_tokens(pipe, session_id, raw)
            if fields:
                self._put_records(pipe, session_id, rewound(_records(fields), at), _fence(fields) + 1)
            return replace(record, token_count=at, missing=0)

        return await self._change(session_id, change)

    async def renew(self, owner: str, session_ids: Sequence[str]) -> set[str]:
        """Keeps sessions for another while; returns those that are somebody else's. SessionStoreUnavailable."""
        keys = [layout.owner_key(checked_id(session_id)) for session_id in session_ids]
        async with self._link.answering():
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

    async def _current_fence(self, pipe: Pipeline, session_id: str) -> int:
        return _fence({_FENCE: await awaited(pipe.hget(layout.requests_key(session_id), _FENCE.decode()))})

    def _put_records(
        self, pipe: Pipeline, session_id: str, put: Sequence[RequestRecord], fence: int, forget: Sequence[str] = ()
    ) -> None:
        key = layout.requests_key(session_id)
        fields: layout.Hash = {record.request_id: to_bytes(record) for record in put}
        pipe.hset(key, mapping=fields | {_FENCE: str(fence)})
        if forget:
            pipe.hdel(key, *forget)

    def _write(self, pipe: Pipeline, record: SessionRecord) -> None:
        super()._write(pipe, record)
        pipe.pexpire(layout.requests_key(record.session_id), timedelta(seconds=record.ttl_seconds))


def _records(requests: Mapping[bytes, bytes]) -> list[RequestRecord]:
    return [from_bytes(name, value) for name, value in requests.items() if name != _FENCE]


def _fence(requests: Mapping[bytes, bytes | None]) -> int:
    raw = requests.get(_FENCE) or b"0"
    if not raw.isdigit():
        raise layout.damaged()
    return int(raw)


def _somebody_began() -> SessionBusy:
    return SessionBusy("Another request is running on this session; wait until it ends.", retry_after=0.1)
