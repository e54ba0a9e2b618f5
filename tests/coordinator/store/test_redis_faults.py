"""A Redis that is down, hung, slow, full or read-only: what callers are told; the log is complete afterwards."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.coordinator.store.backends import MODEL
from tests.support.redis_faults import FaultyRedis, Relay
from tests.support.waiting import eventually

from trireme_coordinator.store import RedisSessionStore, SessionWriter
from trireme_coordinator.store.layout import session_key, tokens_key
from trireme_proto.errors import SessionIncomplete, SessionNotFound, SessionStoreUnavailable

TIMEOUT = 3.0
Act = Callable[[FaultyRedis], Awaitable[None] | None]
FAULTS: dict[str, tuple[Act, Act, str]] = {
    "down": (FaultyRedis.kill, FaultyRedis.restart, "does not answer"),
    "hung": (FaultyRedis.hang, FaultyRedis.go_on, "does not answer"),
    "full": (FaultyRedis.fill, FaultyRedis.make_room, "is full"),
    "read-only": (FaultyRedis.become_replica, FaultyRedis.become_primary, "is read-only"),
}
WRITES_ONLY = {"full", "read-only"}
every_fault = pytest.mark.parametrize("fault", FAULTS)


async def do(act: Act, redis: FaultyRedis) -> None:
    done = act(redis)
    if done is not None:
        await done


@pytest.fixture
async def redis(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FaultyRedis]:
    down = "fault" in request.fixturenames and request.getfixturevalue("fault") == "down"
    async with FaultyRedis(tmp_path / "data" if down else None) as server:
        yield server


@pytest.fixture
async def store(redis: FaultyRedis) -> AsyncIterator[RedisSessionStore]:
    made = RedisSessionStore(redis.url, MODEL, timeout_seconds=TIMEOUT)
    yield made
    await made.close()


def quick(store: RedisSessionStore, **options: int) -> SessionWriter:
    return SessionWriter(store, first_pause=0.01, longest_pause=0.05, flush_seconds=60, **options)


async def away(writer: SessionWriter) -> None:
    async def holds() -> bool:
        return writer.away

    await eventually(holds)


@every_fault
async def test_the_log_is_complete_after_an_outage(redis: FaultyRedis, store: RedisSessionStore, fault: str) -> None:
    begin, end, said = FAULTS[fault]
    writer = quick(store)
    ids = [(await store.create()).session_id for _ in range(3)]
    for session_id in ids:
        writer.put(session_id, 0, [1, 2, 3])
        await writer.flush(session_id)
    await do(begin, redis)
    for position in range(3, 200):
        for number, session_id in enumerate(ids):
            writer.put(session_id, position, [100 + number])
        await asyncio.sleep(0)
    await away(writer)
    with pytest.raises(SessionStoreUnavailable, match=said) as caught:
        await store.create()
    assert caught.value.retry_after == 1.0
    if fault in WRITES_ONLY:
        assert await store.tokens(ids[0]) == [1, 2, 3]
    await do(end, redis)
    for number, session_id in enumerate(ids):
        await writer.flush(session_id, 60)
        assert await store.tokens(session_id) == [1, 2, 3] + [100 + number] * 197
    assert (writer.counters.lost_tokens, writer.backlog_bytes, writer.away) == (0, 0, False)
    await writer.close()


@every_fault
async def test_a_backlog_that_overflows_is_bounded_and_the_session_says_so(
    redis: FaultyRedis, store: RedisSessionStore, fault: str
) -> None:
    begin, end, _ = FAULTS[fault]
    writer = quick(store, backlog_bytes=2000)
    unlucky, lucky = [(await store.create()).session_id for _ in range(2)]
    writer.put(unlucky, 0, [1, 2, 3])
    await writer.flush(unlucky)
    await do(begin, redis)
    for position in range(3, 300):
        writer.put(unlucky, position, [7])
    writer.put(lucky, 0, [8] * 100)
    for position in range(300, 400):
        writer.put(unlucky, position, [7])
        assert writer.backlog_bytes <= 2000
    await away(writer)
    await do(end, redis)
    await writer.flush(lucky, 60)
    await writer.flush(unlucky, 60)
    assert await store.tokens(lucky) == [8] * 100
    record = await store.get(unlucky)
    assert (record.token_count, record.missing) == (3, 397)
    assert writer.counters.lost_tokens == 397
    with pytest.raises(SessionIncomplete):
        await store.tokens(unlucky)
    await store.rewind(unlucky, 3)
    writer.put(unlucky, 3, [9])
    await writer.flush(unlucky)
    assert await store.tokens(unlucky) == [1, 2, 3, 9]
    await writer.close()


async def test_a_hung_server_costs_no_thread_few_connections_and_nobody_waits_in_line(
    redis: FaultyRedis, store: RedisSessionStore
) -> None:
    await store.create()
    threads = threading.active_count()
    redis.hang()
    with pytest.raises(SessionStoreUnavailable):
        await store.create()
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(SessionStoreUnavailable):
            await store.create()
    assert await store.ping() is False
    assert time.monotonic() - started < 12 * TIMEOUT  # a few of them may have tried
    outcomes = await asyncio.gather(*(store.create() for _ in range(500)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {SessionStoreUnavailable}
    assert threading.active_count() <= threads  # those of earlier tests may end meanwhile
    redis.go_on()

    async def answers() -> bool:
        try:
            return bool(await store.create())
        except SessionStoreUnavailable:
            return False

    await eventually(answers)
    clients = await redis.admin("CLIENT", "LIST")
    assert len(clients.splitlines()) <= 16 + 1


async def test_a_slow_server_delays_the_log_and_nothing_else(redis: FaultyRedis, tmp_path: Path) -> None:
    async with Relay(redis.url, tmp_path / "relay") as relay:
        store = RedisSessionStore(relay.url, MODEL, timeout_seconds=30)
        writer = quick(store)
        session_id = (await store.create()).session_id
        relay.seconds = 0.05  # each way of each round trip
        spent = list[float]()
        for position in range(400):
            started = time.perf_counter()
            writer.put(session_id, position, [position])
            spent.append(time.perf_counter() - started)
            await asyncio.sleep(0.001)
        assert statistics.median(spent) < 0.05  # waiting for the server would take 0.1 s each time
        await writer.flush(session_id, 60)
        assert await store.tokens(session_id) == list(range(400))
        assert writer.counters.retries == 0
        await writer.close()
        await store.close()


async def test_a_server_that_is_too_slow_is_as_good_as_away(redis: FaultyRedis, tmp_path: Path) -> None:
    async with Relay(redis.url, tmp_path / "relay") as relay:
        store = RedisSessionStore(relay.url, MODEL, timeout_seconds=TIMEOUT)
        writer = quick(store)
        session_id = (await store.create()).session_id
        relay.seconds = TIMEOUT
        writer.put(session_id, 0, [1, 2])
        await away(writer)
        with pytest.raises(SessionStoreUnavailable, match="does not answer"):
            await store.tokens(session_id)
        relay.seconds = 0
        await writer.flush(session_id, 60)
        assert await store.tokens(session_id) == [1, 2]
        await writer.close()
        await store.close()


@pytest.mark.parametrize("gone", ["restarted without its data", "time to live over", "deleted by another"])
async def test_a_session_that_vanished_meanwhile_is_not_found_and_not_half_there(gone: str) -> None:
    async with FaultyRedis() as redis:
        store = RedisSessionStore(redis.url, MODEL, timeout_seconds=TIMEOUT)
        gone_by_now = asyncio.Event()

        async def sleep(_: float) -> None:
            await gone_by_now.wait()
            await asyncio.sleep(0.01)

        writer = SessionWriter(store, sleep=sleep, flush_seconds=60)
        session_id = (await store.create()).session_id
        writer.put(session_id, 0, [1, 2, 3])
        await writer.flush(session_id)
        if gone == "restarted without its data":
            redis.kill()
            writer.put(session_id, 3, [4])
            await away(writer)
            redis.restart()
        else:
            await redis.become_replica()
            writer.put(session_id, 3, [4])
            await away(writer)
            await redis.become_primary()
            if gone == "time to live over":
                await redis.admin("PEXPIRE", session_key(session_id), 0)
                await redis.admin("PEXPIRE", tokens_key(session_id), 0)
            else:
                await redis.admin("DEL", session_key(session_id), tokens_key(session_id))
        gone_by_now.set()
        with pytest.raises(SessionNotFound):
            await writer.flush(session_id, 60)
        with pytest.raises(SessionNotFound):
            await store.tokens(session_id)
        assert await redis.admin("STRLEN", tokens_key(session_id)) == 0
        other = (await store.create()).session_id  # and everybody else goes on
        writer.put(other, 0, [5])
        await writer.flush(other)
        assert await store.tokens(other) == [5]
        await writer.close()
        await store.close()
