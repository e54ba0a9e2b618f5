"""What only a real server shows: expiry, rights, damage, outages, cancelled calls."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import time
from pathlib import Path

import pytest
from redis.exceptions import ResponseError
from tests.coordinator.store.backends import MODEL, RedisBackend
from tests.support.waiting import eventually

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store import RedisSessionStore
from trireme_coordinator.store.layout import INDEX_EXPIRES, INDEX_USED, session_key, tokens_key
from trireme_proto.errors import ConfigurationError, Internal, SessionNotFound, SessionStoreUnavailable, TriremeError


async def test_every_key_expires(open_server):
    backend = RedisBackend(open_server.url)
    session_id = (await backend.store().create(100)).session_id
    await backend.store().append(session_id, 0, [1])
    keys = {key.decode() async for key in backend.raw.scan_iter()}
    assert keys == {session_key(session_id), tokens_key(session_id), INDEX_USED, INDEX_EXPIRES}
    assert 0 < await backend.raw.pttl(session_key(session_id)) <= 100_000
    assert 0 < await backend.raw.pttl(tokens_key(session_id)) <= 100_000
    assert await backend.raw.pttl(INDEX_USED) > 86_400_000
    assert await backend.raw.pttl(INDEX_EXPIRES) > 86_400_000
    await backend.close()


async def test_use_renews_the_expiry_in_redis(open_server):
    backend = RedisBackend(open_server.url)
    session_id = (await backend.store().create(100)).session_id
    await backend.store().append(session_id, 0, [1])
    for key in (session_key(session_id), tokens_key(session_id)):
        await backend.raw.pexpire(key, 5000)
    await backend.store().append(session_id, 1, [2])
    for key in (session_key(session_id), tokens_key(session_id)):
        assert await backend.raw.pttl(key) > 5000
    await backend.close()


async def test_the_index_forgets_what_expired_without_anybody_listing(on_redis):
    store = on_redis.store()
    for _ in range(3):
        await store.create(10)
    on_redis.clock.advance(10 + 61)
    kept = (await store.create(10)).session_id
    assert await on_redis.raw.zrange(INDEX_USED, 0, -1) == [kept.encode()]
    assert await on_redis.raw.zrange(INDEX_EXPIRES, 0, -1) == [kept.encode()]


@pytest.mark.parametrize(
    "command",
    [
        ("EVAL", "return 1", "0"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "dir"),
        ("MODULE", "LIST"),
        ("DEBUG", "SLEEP", "0"),
        ("SAVE",),
        ("ACL", "LIST"),
        ("HGETALL", "somebody:else"),
    ],
    ids=lambda command: command[0],
)
async def test_cve_2025_49844_the_server_refuses_what_sessions_do_not_need(on_redis, command):
    with pytest.raises(ResponseError, match=r"permission|not allowed"):
        await on_redis.raw.execute_command(*command)


async def test_nobody_gets_in_without_the_password(server):
    for url in (
        server.url.replace(server.url.split("@")[0], "unix://trireme:wrong"),
        "unix://" + server.url.split("@")[1],
    ):
        store = RedisSessionStore(url, MODEL)
        assert await store.ping() is False
        with pytest.raises(SessionStoreUnavailable):
            await store.create()
        await store.close()


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["created", "last_used", "ttl", "count", "model", "pack"])
@pytest.mark.parametrize("value", [b"", b"-1", b"\xff\xfe", b"9" * 400, b"9" * 18, b"NaN", b"bomb"])
async def test_cve_2026_25874_a_damaged_record_is_a_typed_error(on_redis, tmp_path, name, value):
    store = on_redis.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1])
    value = pickle.dumps(Bomb(tmp_path / "exploded")) if value == b"bomb" else value
    await on_redis.raw.hset(session_key(session_id), name, value)
    if name == "model" and value != b"\xff\xfe" and not value.startswith(b"\x80"):
        assert (await store.get(session_id)).model == value.decode()  # any text is a name
        return
    for call in (store.get(session_id), store.tokens(session_id), store.append(session_id, 1, [2])):
        with pytest.raises(Internal, match="damaged"):
            await call
    assert await store.list(10) == ([], "")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("extra", [b"\x00", b"\x00\x10\x00\x00", b"\x01\x00\x00\x00"])
async def test_damaged_tokens_are_a_typed_error(on_redis, extra):
    store = on_redis.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1])
    await on_redis.raw.append(tokens_key(session_id), extra)
    for call in (store.tokens(session_id), store.append(session_id, 1, [2])):
        with pytest.raises(Internal, match="damaged"):
            await call


async def test_a_token_outside_of_the_vocabulary_is_damage(on_redis):
    store = on_redis.store()
    session_id = (await store.create()).session_id
    await on_redis.raw.append(tokens_key(session_id), (4096).to_bytes(4, "little"))
    await on_redis.raw.hset(session_key(session_id), "count", 1)
    with pytest.raises(Internal, match="damaged"):
        await store.tokens(session_id)


async def test_tokens_that_redis_lost_are_not_taken_for_an_empty_session(on_redis):
    store = on_redis.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1, 2])
    await on_redis.raw.delete(tokens_key(session_id))
    with pytest.raises(Internal, match="damaged"):
        await store.tokens(session_id)


async def test_a_value_of_the_wrong_kind_is_an_answer_of_a_store_that_does_not_work(open_server):
    backend = RedisBackend(open_server.url)
    session_id = (await backend.store().create()).session_id
    await backend.raw.set(session_key(session_id), b"text")
    with pytest.raises(SessionStoreUnavailable):
        await backend.store().get(session_id)
    assert await backend.store().list(10) == ([], "")
    await backend.close()


async def test_strangers_in_the_index_are_left_out_and_forgotten(on_redis):
    session_id = (await on_redis.store().create()).session_id
    strangers = {b"\xff\x00": 9e15, "a}:tokens": 9e15, "nobody": 9e15}
    await on_redis.raw.zadd(INDEX_USED, strangers)
    assert [record.session_id for record in (await on_redis.store().list(10))[0]] == [session_id]
    assert await on_redis.raw.zrange(INDEX_USED, 0, -1) == [session_id.encode()]


async def test_a_hash_under_a_name_that_no_id_has_is_nobodys_session(on_redis):
    session_id = (await on_redis.store().create()).session_id
    stranger = "a}b"
    await on_redis.raw.hset(session_key(stranger), mapping=await on_redis.raw.hgetall(session_key(session_id)))
    await on_redis.raw.zadd(INDEX_USED, {stranger: 9e15})
    assert [record.session_id for record in (await on_redis.store().list(10))[0]] == [session_id]
    with pytest.raises(SessionNotFound):
        await on_redis.store().get(stranger)
    await on_redis.raw.delete(session_key(stranger))


async def test_a_deleted_session_leaves_no_trace(open_server):
    backend = RedisBackend(open_server.url)
    session_id = (await backend.store().create()).session_id
    await backend.store().append(session_id, 0, [1])
    await backend.store().delete(session_id)
    assert [key async for key in backend.raw.scan_iter()] == []
    await backend.close()


async def test_a_dead_server_is_unavailable_and_no_address_is_told():
    with EmbeddedRedis() as server:
        store = RedisSessionStore(server.url, MODEL)
        session_id = (await store.create()).session_id
        os.kill(server.pid, signal.SIGKILL)
        server._server.wait()
        for call in (store.create(), store.get(session_id), store.tokens(session_id), store.delete(session_id)):
            with pytest.raises(SessionStoreUnavailable, match=r"^The session store does not answer\.$"):
                await call
        for call in (store.append(session_id, 0, [1]), store.list(10)):
            with pytest.raises(SessionStoreUnavailable, match=r"^The session store does not answer\.$"):
                await call
        assert await store.ping() is False
        await store.close()


async def test_a_call_takes_no_longer_than_its_bound_however_many_commands_it_needs():
    with EmbeddedRedis() as server:
        store = RedisSessionStore(server.url, MODEL, timeout_seconds=4.0)
        await store.create()
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(SessionStoreUnavailable):
            await store.create()
        os.kill(server.pid, signal.SIGCONT)
        assert time.monotonic() - started < 7.0  # one attempt and its repetition would take 8 s
        await store.close()


async def test_a_server_that_hangs_is_given_up_in_time_and_used_again_later():
    with EmbeddedRedis() as server:
        store = RedisSessionStore(server.url, MODEL, timeout_seconds=1.0)
        session_id = (await store.create()).session_id
        await store.append(session_id, 0, [1, 2])
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                for call in (store.tokens(session_id), store.append(session_id, 2, [3]), store.get(session_id)):
                    with pytest.raises(SessionStoreUnavailable):
                        await call
                assert await store.ping() is False
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await eventually(store.ping)
        assert (await store.tokens(session_id))[:2] == [1, 2]
        await store.append(session_id, 2, [3])
        assert await store.tokens(session_id) == [1, 2, 3]
        await store.close()


async def test_cve_2023_28858_a_cancelled_call_leaves_no_answer_for_the_next(on_redis):
    store, random_ = on_redis.store(), random.Random(7)
    sessions = {(await store.create()).session_id: [number] * (number + 1) for number in range(8)}
    for session_id, token_ids in sessions.items():
        await store.append(session_id, 0, token_ids)

    async def read(session_id: str) -> None:
        assert await store.tokens(session_id) == sessions[session_id]

    outcomes = []
    for _ in range(60):
        tasks = [asyncio.ensure_future(read(random_.choice(list(sessions)))) for _ in range(20)]
        for task in tasks:
            for _ in range(random_.randrange(4)):
                await asyncio.sleep(0)
            if random_.random() < 0.5:
                task.cancel()
        outcomes += await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), asyncio.CancelledError}


async def test_a_store_that_was_restarted_is_found_again_at_once(tmp_path, monkeypatch):
    server = EmbeddedRedis(tmp_path / "data")
    server.start()
    store = RedisSessionStore(server.url, MODEL)
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1, 2])
    folder = server._folder
    server.stop()
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: (folder.mkdir(mode=0o700), str(folder))[1])
    with server:
        assert await store.tokens(session_id) == [1, 2]  # although the connections in the pool are those to the old one
        await store.close()


async def test_deleting_while_the_answer_is_written_does_not_bring_the_session_back(on_redis):
    store = on_redis.store()
    for _ in range(20):
        session_id = (await store.create()).session_id
        await asyncio.gather(store.append(session_id, 0, [1]), store.delete(session_id), return_exceptions=True)
        with pytest.raises(SessionNotFound):
            await store.get(session_id)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://localhost", "redis://", "unix://", "redis://localhost:port/0", "redis://[::1"],
)
def test_a_malformed_url_is_refused(url):
    with pytest.raises(ConfigurationError, match="Redis URL must look like"):
        RedisSessionStore(url, MODEL)


async def test_an_unknown_option_in_the_url_is_refused():
    with pytest.raises(ConfigurationError, match="Redis URL"):
        RedisSessionStore("redis://localhost/0?colour=green", MODEL)


@pytest.mark.parametrize(
    "url", ["redis://10.0.0.1:6379/0", "redis://redis/0", "redis://:@redis/0", "redis://redis?password="]
)
def test_cve_2025_21605_redis_on_the_network_needs_a_password_or_tls(url):
    with pytest.raises(ConfigurationError, match="password"):
        RedisSessionStore(url, MODEL)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1",
        "redis://[::1]:1",
        "redis://localhost:1/0",
        "redis://:secret@redis:1",
        "redis://redis:1?password=secret",
        "rediss://redis:1",
        "unix:///nowhere",
    ],
)
async def test_other_urls_are_taken_and_an_absent_server_is_unavailable(url):
    store = RedisSessionStore(url, MODEL, timeout_seconds=1.0)
    with pytest.raises(SessionStoreUnavailable) as raised:
        await store.create()
    assert str(raised.value) == "The session store does not answer."
    assert isinstance(raised.value, TriremeError)
    await store.close()
