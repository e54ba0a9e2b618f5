"""KV pages in Redis: the one file of the worker that imports redis.

    trireme:1:kv:page:{NAME}     string      a value of page_value.py
    trireme:1:kv:used:{STAGE}    sorted set  names of the pages of one kind of stage, by last use (microseconds)
    trireme:1:kv:stages          hash        STAGE -> bytes of one of its values
    trireme:1:kv:secret          string      32 bytes, from which the coordinator makes tenants' keys

All values of a stage have one size, so cards of sorted sets times sizes are all the bytes there are: the books cannot
drift, whoever dies in between. A writer makes room before it writes, the least recently used goes first. Every key
expires. No scripting. Every call is bounded in time, and whatever goes wrong is StoreUnavailable, without an address.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from trireme_proto.errors import StartupError
from trireme_proto.limits import LIMITS

COMMANDS = (
    *("auth", "hello", "set", "getrange", "exists", "del", "pexpire"),
    *("hset", "hgetall", "hdel", "zadd", "zcard", "zrange", "zpopmin", "zremrangebyscore", "info"),
)
"""Every command of the page store, and of the metrics."""
PREFIX = "trireme:1:kv:"
STAGES = PREFIX + "stages"
SECRET = PREFIX + "secret"
SECRET_BYTES = 32
_SECONDS = 1.0
_CONNECTIONS = 8
_PRESENT = 128
"""Names that are asked for at once."""
_EVICTED = 8
"""Pages that are given up at once: several writers may do so at the same time."""
_ROUNDS = 4096
Clock = Callable[[], int]
"""Nanoseconds since 1970, as time.time_ns."""
_Call = tuple[str, tuple[Any, ...]]
"""A method of the client, and its arguments."""


class StoreUnavailable(Exception):
    """The page store did not answer, or would not do what it was asked. Never leaves the stage."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where pages are kept, and how many of them."""

    url: str = field(repr=False)
    """Of Redis; it may hold a password."""
    budget_bytes: int
    """Of all pages of all who use this Redis."""
    ttl_seconds: int
    """Without use, after which a page is forgotten."""


def page_key(name: str) -> str:
    """The key of a page's value."""
    return f"{PREFIX}page:{name}"


def used_key(stage: str) -> str:
    """The key of the index of a stage's pages."""
    return f"{PREFIX}used:{stage}"


class RedisPages:
    """Pages of one kind of stage. Connects at the first call; may be used by several threads."""

    def __init__(
        self,
        settings: StoreSettings,
        stage: bytes,
        value_bytes: int,
        *,
        timeout_seconds: float = _SECONDS,
        clock: Clock = time.time_ns,
    ) -> None:
        """`stage`: what tells it from others; `value_bytes`: of each value."""
        self._client, self._clock = _client(settings.url, timeout_seconds), clock
        self._settings, self._stage, self._size = settings, stage.hex(), value_bytes

    def present(self, names: Sequence[str]) -> list[bool]:
        """Which of the pages are there. StoreUnavailable."""
        found: list[bool] = []
        for at in range(0, len(names), _PRESENT):
            found += map(bool, self._all([("exists", (page_key(name),)) for name in names[at : at + _PRESENT]]))
        return found

    def leading(self, names: Sequence[str]) -> int:
        """How many of the pages are there, from the first one on. StoreUnavailable."""
        for at in range(0, len(names), _PRESENT):
            found = self.present(names[at : at + _PRESENT])
            if not all(found):
                return at + found.index(False)
        return len(names)

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The values, at most one byte longer than they should be; empty ones of pages that are not there.
        StoreUnavailable.
        """
        return self._all([("getrange", (page_key(name), 0, self._size)) for name in names])

    def write(self, values: Sequence[tuple[str, int, memoryview]]) -> None:
        """Keeps (name, its number among the pages of its sequence, value). StoreUnavailable."""
        self._make_room(len(values) * self._size)
        calls: list[_Call] = [("hset", (STAGES, self._stage, self._size))]
        calls.append(("zadd", (used_key(self._stage), self._scores([(name, number) for name, number, _ in values]))))
        calls += [("set", (page_key(name), value, None, self._ttl_ms)) for name, _, value in values]
        calls += [("pexpire", (key, self._ttl_ms)) for key in (STAGES, used_key(self._stage))]
        self._all(calls)

    def touch(self, pages: Sequence[tuple[str, int]]) -> None:
        """(name, number) of pages that were used just now. StoreUnavailable."""
        calls: list[_Call] = [("zadd", (used_key(self._stage), self._scores(pages)))]
        calls += [("pexpire", (page_key(name), self._ttl_ms)) for name, _ in pages]
        self._all(calls)

    def close(self) -> None:
        """Gives back the connections."""
        self._client.close()

    @property
    def _ttl_ms(self) -> int:
        return self._settings.ttl_seconds * 1000

    def _scores(self, pages: Sequence[tuple[str, int]]) -> dict[str, float]:
        """Later pages of a sequence are of no use without the earlier ones: they go first."""
        now = self._clock() // 1000
        return {name: now - number for name, number in pages}

    def _make_room(self, wanted: int) -> None:
        """Gives up pages, whoever's they are, until `wanted` bytes fit."""
        expired = self._clock() // 1000 - self._settings.ttl_seconds * 1_000_000
        for _ in range(_ROUNDS):
            sizes = self._sizes()
            calls: list[_Call] = [("zremrangebyscore", (used_key(s), "-inf", expired)) for s in sizes]
            calls += [("zcard", (used_key(s),)) for s in sizes]
            calls += [("zrange", (used_key(s), 0, 0, False, True)) for s in sizes]
            answers = self._all(calls)
            cards, heads = answers[len(sizes) : 2 * len(sizes)], answers[2 * len(sizes) :]
            self._forget_empty([s for s, card in zip(sizes, cards, strict=True) if not card and s != self._stage])
            held = sum(card * size for card, size in zip(cards, sizes.values(), strict=True))
            oldest = [(head[0][1], s) for head, s in zip(heads, sizes, strict=True) if head]
            if held + wanted <= self._settings.budget_bytes or not oldest:
                return
            stage = min(oldest)[1]
            excess = held + wanted - self._settings.budget_bytes
            self._evict(stage, min(_EVICTED, -(-excess // sizes[stage])))

    def _sizes(self) -> dict[str, int]:
        """Bytes of a value, for each kind of stage that has any; what is not ours in the hash does not count."""
        found = self._all([("hgetall", (STAGES,))])[0]
        sizes = {stage.decode(errors="replace"): size for stage, size in found.items() if size.isdigit()}
        return {stage: int(size) for stage, size in sizes.items() if int(size)} | {self._stage: self._size}

    def _evict(self, stage: str, count: int) -> None:
        popped = self._all([("zpopmin", (used_key(stage), count))])[0]
        if popped:
            self._all([("delete", tuple(page_key(name.decode(errors="replace")) for name, _ in popped))])

    def _forget_empty(self, stages: Sequence[str]) -> None:
        if stages:
            self._all([("hdel", (STAGES, *stages))])

    def _all(self, calls: Sequence[_Call]) -> list[Any]:
        """The answers to some commands, in one round trip."""
        if not calls:
            return []
        with _answering(), self._client.pipeline(transaction=False) as pipe:
            for command, arguments in calls:
                getattr(pipe, command)(*arguments)
            return list(pipe.execute())


def shared_secret(url: str) -> bytes:
    """The secret of this deployment, 32 bytes, made by whoever asks first. StartupError."""
    try:
        with _answering(), _client(url, _SECONDS) as client:
            client.set(SECRET, secrets.token_bytes(SECRET_BYTES), nx=True)
            client.pexpire(SECRET, LIMITS.session_ttl_seconds * 1000)
            found = client.getrange(SECRET, 0, SECRET_BYTES)
    except StoreUnavailable:
        raise StartupError("Redis does not take KV pages: it does not answer, or its user may not do so.") from None
    if not isinstance(found, bytes) or len(found) != SECRET_BYTES:
        raise StartupError("Redis holds a damaged secret for KV pages; delete the key trireme:1:kv:secret.")
    return found


def _client(url: str, timeout_seconds: float) -> Redis:
    return Redis.from_pool(
        ConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection kept from before Redis restarted is no failure
            driver_info=None,
        )
    )


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error
