"""Redis fails in every way while streams run: they do not notice, and the log is complete afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.pipeline import local_pipeline
from tests.support.redis_faults import FaultyRedis, Relay
from tests.support.serving import Served, identity, serving
from tests.support.waiting import eventually

from trireme import AsyncClient, Generation, errors
from trireme_coordinator.store import RedisRequestStore
from trireme_worker.pack import Pack

PROMPT = "Once upon a time, there was"
ANSWER = 60
PAUSE = 2.5
"""Longest time between two tokens, in seconds. A step takes some milliseconds; waiting for Redis takes TIMEOUT."""
TIMEOUT = 5.0
"""What the store waits for Redis, in seconds."""
Act = Callable[[FaultyRedis], Awaitable[None] | None]
FAULTS: dict[str, tuple[Act, Act]] = {
    "down": (FaultyRedis.kill, FaultyRedis.restart),
    "hung": (FaultyRedis.hang, FaultyRedis.go_on),
    "full": (FaultyRedis.fill, FaultyRedis.make_room),
    "read-only": (FaultyRedis.become_replica, FaultyRedis.become_primary),
}


async def do(act: Act, redis: FaultyRedis) -> None:
    done = act(redis)
    if done is not None:
        await done


@asynccontextmanager
async def served(
    pack: Pack, url: str, *, required: bool = False, backlog_bytes: int = 64 << 20
) -> AsyncIterator[Served]:
    store = RedisRequestStore(url, identity(pack), timeout_seconds=TIMEOUT)
    try:
        async with (
            local_pipeline(pack) as local,
            serving(local, store, required=required, backlog_bytes=backlog_bytes) as server,
        ):
            yield server
    finally:
        await store.close()


async def ask(client: AsyncClient, prompt: str | list[int] = PROMPT, session: str | None = None) -> Generation:
    return await client.generate(prompt, session=session, max_tokens=ANSWER, temperature=0.0, ignore_eos=True).result()


async def streamed(client: AsyncClient, after: int, begin: Callable[[], Awaitable[None]]) -> tuple[Generation, float]:
    """An answer during which something happens, and the longest pause between two of its tokens from then on."""
    longest, last = 0.0, 0.0
    async with client.generate(PROMPT, max_tokens=ANSWER, temperature=0.0, ignore_eos=True) as stream:
        async for chunk in stream:
            if last and chunk.token_ids:
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if not last and chunk.index + len(chunk.token_ids) > after:
                await begin()
                last = time.monotonic()
        return await stream.result(), longest


async def stored(client: AsyncClient, session_id: str) -> list[int]:
    """The session's tokens in Redis, as soon as there are as many as there should be."""
    found: list[int] = []

    async def whole() -> bool:
        try:
            found[:] = (await client.sessions.get(session_id, include_tokens=True)).token_ids or ()
        except (errors.SessionStoreUnavailable, errors.SessionNotFound):
            return False
        return len(found) >= len(await client.tokenize(PROMPT)) + ANSWER

    await eventually(whole)
    return found


@pytest.mark.parametrize("fault", FAULTS)
async def test_streams_do_not_notice_and_the_log_is_complete_afterwards(pack: Pack, tmp_path: Path, fault: str) -> None:
    begin, end = FAULTS[fault]
    async with FaultyRedis(tmp_path if fault == "down" else None) as redis, served(pack, redis.url) as server:
        client = server.client
        calm = await ask(client)
        whole = [*await client.tokenize(PROMPT), *calm.token_ids]
        answer, pause = await streamed(client, 5, lambda: do(begin, redis))
        assert answer.token_ids == calm.token_ids
        assert pause < PAUSE
        new = await ask(client)  # a conversation that begins meanwhile
        assert new.token_ids == calm.token_ids
        with pytest.raises(errors.SessionStoreUnavailable) as caught:
            await client.sessions.create()
        assert caught.value.retry_after == 1.0
        with pytest.raises(errors.SessionStoreUnavailable):  # the first answer may have been stored before the fault
            await ask(client, " And then", new.session_id)
        assert server.writer.backlog_bytes > 0
        await do(end, redis)
        for session_id in (answer.session_id, new.session_id):
            assert await stored(client, session_id) == whole
            more = await ask(client, " And then", session_id)
            more_at_once = await ask(client, [*whole, *await client.tokenize(" And then", add_bos=False)])
            assert more.token_ids == more_at_once.token_ids
        assert (server.writer.counters.lost_tokens, server.writer.backlog_bytes) == (0, 0)


async def test_a_slow_redis_slows_no_stream(pack: Pack, tmp_path: Path) -> None:
    async with FaultyRedis() as redis, Relay(redis.url, tmp_path / "relay") as relay, served(pack, relay.url) as server:
        calm = await ask(server.client)

        async def slower() -> None:
            relay.seconds = 0.3  # each way, and an append takes five round trips

        answer, pause = await streamed(server.client, 5, slower)
        assert answer.token_ids == calm.token_ids
        assert pause < PAUSE
        whole = [*await server.client.tokenize(PROMPT), *calm.token_ids]
        assert await stored(server.client, answer.session_id) == whole


async def test_where_durability_is_required_a_conversation_does_not_begin_without(pack: Pack) -> None:
    async with FaultyRedis() as redis, served(pack, redis.url, required=True) as server:
        calm = await ask(server.client)

        async def kill() -> None:
            redis.kill()

        answer, _ = await streamed(server.client, 5, kill)
        assert answer.token_ids == calm.token_ids  # one that had begun goes on
        with pytest.raises(errors.SessionStoreUnavailable) as caught:
            await ask(server.client)
        assert caught.value.retry_after == 1.0
        redis.restart()
        await _answers(server)
        assert (await ask(server.client)).token_ids == calm.token_ids


async def test_an_answer_that_could_not_be_stored_leaves_a_session_that_says_so(pack: Pack) -> None:
    async with FaultyRedis() as redis, served(pack, redis.url, backlog_bytes=512 + 4 * 100) as server:
        client = server.client
        first = await ask(client, [0, 300, 301])
        held = 3 + ANSWER

        async def kept() -> bool:
            return (await client.sessions.get(first.session_id)).token_count == held

        await eventually(kept)
        await redis.fill()
        long = {"max_tokens": 150, "temperature": 0.0, "ignore_eos": True}
        second = await client.generate([302], session=first.session_id, **long).result()  # 604 bytes
        assert len(second.token_ids) == 150
        await redis.make_room()

        async def told() -> bool:
            return (await client.sessions.get(first.session_id)).missing_tokens > 0

        await eventually(told)
        found = await client.sessions.get(first.session_id)  # a write that was under way may have brought some tokens
        assert found.token_count >= held
        assert found.token_count + found.missing_tokens == held + 1 + 150
        with pytest.raises(errors.SessionIncomplete, match=f"rewind it to {found.token_count} tokens"):
            await ask(client, [303], first.session_id)
        await client.sessions.rewind(first.session_id, held)
        again = await client.generate([302], session=first.session_id, **long).result()
        assert again.token_ids == second.token_ids


async def test_a_refused_request_without_a_store_leaves_nothing_to_be_stored(pack: Pack) -> None:
    async with FaultyRedis() as redis, served(pack, redis.url) as server:
        redis.kill()
        with pytest.raises(errors.PromptTooLong):
            await ask(server.client, [1] * 4000)
        assert server.writer._backlogs.unborn == {}
        assert server.writer.backlog_bytes == 0
        redis.restart()


async def test_forks_and_rewound_sessions_share_what_is_held(pack: Pack) -> None:
    async with FaultyRedis() as redis, served(pack, redis.url) as server:
        client = server.client
        first = await ask(client)
        tokens = (await client.sessions.get(first.session_id, include_tokens=True)).token_ids
        assert tokens is not None
        for at in (len(tokens), 48, 20):
            fork = await client.sessions.fork(first.session_id, at)
            answer = await ask(client, [7], fork.session_id)
            assert answer.usage.cached_tokens == (min(at, len(tokens) - 1) // 16) * 16  # whole pages
            await client.sessions.rewind(fork.session_id, at)
            again = await ask(client, [7], fork.session_id)
            assert again.token_ids == answer.token_ids
            assert again.usage.cached_tokens >= at // 16 * 16


async def _answers(server: Served) -> None:
    async def holds() -> bool:
        try:
            return bool(await server.client.sessions.create())
        except errors.SessionStoreUnavailable:
            return False

    await eventually(holds)
