"""Where sessions can live, and a clock that moves only when told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from redis.asyncio import Redis

from trireme_coordinator.store import MemoryRequestStore, ModelIdentity, RedisRequestStore, RequestStore
from trireme_coordinator.store.layout import INDEX_EXPIRES, INDEX_USED, owner_key, requests_key, session_key, tokens_key
from trireme_coordinator.store.requests import LEASE_SECONDS

MODEL = ModelIdentity("tiny", "a" * 64, 4096)
OTHER_PACK = ModelIdentity("tiny", "b" * 64, 4096)


class FakeClock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Backend(Protocol):
    """One place where sessions live, and stores on it."""

    clock: FakeClock

    def store(self, model: ModelIdentity = MODEL) -> RequestStore: ...
    async def expire(self, session_id: str) -> None:
        """As if the session had not been used for its time to live. Moves the clock past it."""

    async def lapse(self, session_id: str) -> None:
        """As if the session's owner had been silent for a while."""


class MemoryBackend:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sessions: MemoryRequestStore | None = None

    def store(self, model: ModelIdentity = MODEL) -> RequestStore:
        made = MemoryRequestStore(model, clock=self.clock)
        if self.sessions is not None:
            made._sessions, made.shared = self.sessions._sessions, self.sessions.shared
        self.sessions = self.sessions or made
        return made

    async def expire(self, session_id: str) -> None:
        record = await self.store().get(session_id)
        self.clock.advance((record.expires - self.clock.now).total_seconds())

    async def lapse(self, session_id: str) -> None:
        self.clock.advance(LEASE_SECONDS)


class RedisBackend:
    def __init__(self, url: str) -> None:
        self.clock = FakeClock()
        self.url = url
        self.raw = Redis.from_url(url, driver_info=None)
        self.stores: list[RequestStore] = []

    def store(self, model: ModelIdentity = MODEL) -> RequestStore:
        self.stores.append(RedisRequestStore(self.url, model, clock=self.clock))
        return self.stores[-1]

    async def expire(self, session_id: str) -> None:
        record = await self.store().get(session_id)
        self.clock.advance((record.expires - self.clock.now).total_seconds())
        for key in (session_key(session_id), tokens_key(session_id), requests_key(session_id)):
            await self.raw.pexpire(key, 0)

    async def lapse(self, session_id: str) -> None:
        await self.raw.pexpire(owner_key(session_id), 0)

    async def close(self) -> None:
        """Leaves the server as it was found."""
        for store in self.stores:
            await store.close()
        for raw_id in await self.raw.zrange(INDEX_USED, 0, -1):
            session_id = raw_id.decode()
            await self.raw.delete(session_key(session_id), tokens_key(session_id))
            await self.raw.delete(requests_key(session_id), owner_key(session_id))
        await self.raw.delete(INDEX_USED, INDEX_EXPIRES)
        await self.raw.aclose()
