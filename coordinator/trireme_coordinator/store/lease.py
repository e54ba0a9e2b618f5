"""The lease in Redis that says which coordinator of a deployment drives the stages. Commands and round trips only.

Beside the lease, which expires by itself, lies the highest fencing token ever given out: whoever takes the lease gets a
higher one, and an owner whose lease expired unnoticed has it back as long as nobody else was given one. When to ask is
`leadership.py`'s business. Every call is one optimistic transaction, bounded in time; no scripting. It has a client
of its own: `RedisLink` leaves Redis alone for a while after a failure, but a lease that is not renewed is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from trireme_coordinator.store import layout
from trireme_coordinator.store.redis_url import checked_url
from trireme_proto.errors import SessionStoreUnavailable

T = TypeVar("T")
_ATTEMPTS = 5
"""Most times that a transaction starts again because somebody else wrote meanwhile."""


class Held(NamedTuple):
    """What Redis holds about a deployment's lease."""

    token: int
    """Of the lease in force; 0 where there is none."""
    owner: str
    highest: int
    """Highest token ever given out, as far as Redis remembers."""


class RedisLease:
    """The lease of `deployment`, as seen by coordinator `owner` (a name without blanks, another for each process)."""

    def __init__(
        self, url: str, deployment: str, owner: str, *, ttl_seconds: float = 1.5, timeout_seconds: float = 1.0
    ) -> None:
        """`ttl_seconds`: how long the lease outlives its last renewal. Connects at the first call."""
        self.owner, self.ttl_seconds = owner, ttl_seconds
        self._timeout = timeout_seconds
        self._key = layout.leader_key(deployment)
        self._ttl_ms = round(ttl_seconds * 1000)
        retry = Retry(NoBackoff(), 1)  # a connection from before Redis restarted is no failure
        self._client: Redis = Redis.from_url(
            checked_url(url), socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, retry=retry
        )

    async def take(self, above: int = 0) -> int:
        """Takes the lease where nobody has it; its token, higher than `above` and all before. 0: somebody has it."""

        def decide(held: Held, pipe: Pipeline) -> int:
            return 0 if held.token else self._write(pipe, max(held.highest, above) + 1)

        return await self._transaction(decide)

    async def keep(self, token: int) -> bool:
        """Renews our lease, or has it back where it expired and nobody was given one since. False: it is lost."""

        def decide(held: Held, pipe: Pipeline) -> bool:
            lost = (held.owner, held.token) != (self.owner, token) if held.token else held.highest > token
            return not lost and bool(self._write(pipe, token))

        return await self._transaction(decide)

    async def rise(self, token: int, above: int) -> int:
        """Exchanges our lease's token for one above `above`. 0: the lease is not ours any more."""

        def decide(held: Held, pipe: Pipeline) -> int:
            if (held.owner, held.token) != (self.owner, token):
                return 0
            return self._write(pipe, max(held.highest, above) + 1)

        return await self._transaction(decide)

    async def release(self, token: int) -> None:
        """Gives our lease up, for the next one to take it at once. Nothing happens where it is not ours."""

        def decide(held: Held, pipe: Pipeline) -> None:
            if (held.owner, held.token) == (self.owner, token):
                pipe.delete(self._key)

        await self._transaction(decide)

    async def holder(self) -> str:
        """The owner of the lease; empty where nobody has it."""
        return (await self._transaction(lambda held, _: held)).owner

    async def stand_by(self) -> None:
        """Says that somebody is there to take the lease when it is free."""
        await self._bounded(self._client.set(f"{self._key}:next", self.owner, px=self._ttl_ms))

    async def somebody_stands_by(self) -> bool:
        """Whether another than we would take the lease."""
        raw = await self._bounded(self._client.get(f"{self._key}:next"))
        return raw is not None and raw.decode(errors="replace") != self.owner

    async def close(self) -> None:
        """Gives the connections back."""
        await self._client.aclose()

    def _write(self, pipe: Pipeline, token: int) -> int:
        pipe.set(self._key, f"{token} {self.owner}", px=self._ttl_ms)
        pipe.set(f"{self._key}:token", token)
        return token

    async def _transaction(self, decide: Callable[[Held, Pipeline], T]) -> T:
        """What `decide` says to what Redis holds; what it puts into the pipeline is done at once, or not at all."""

        async def attempt() -> T:
            async with self._client.pipeline(transaction=True) as pipe:
                await pipe.watch(self._key, f"{self._key}:token")
                held = _held(await pipe.get(self._key), await pipe.get(f"{self._key}:token"))
                pipe.multi()  # type: ignore[no-untyped-call]
                decided = decide(held, pipe)
                await pipe.execute()
                return decided

        for _ in range(_ATTEMPTS):
            try:
                return cast(T, await self._bounded(attempt()))
            except WatchError:
                continue
        raise _unavailable()

    async def _bounded(self, answer: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except WatchError:
            raise
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable() from error


def _held(lease: bytes | str | None, highest: bytes | str | None) -> Held:
    """What the two values say; damaged ones count as none, and are written over."""
    token, _, owner = _text(lease).partition(" ")
    number = _number(token)
    return Held(number, owner if number else "", max(number, _number(_text(highest))))


def _text(raw: bytes | str | None) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw or ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def _unavailable() -> SessionStoreUnavailable:
    return SessionStoreUnavailable("Redis does not answer.")
