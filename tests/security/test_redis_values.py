"""A pickle bomb in every value that we keep in Redis: a typed error, or as if there were nothing; no side effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.coordinator.store.backends import MODEL
from tests.security.bomb import bomb
from tests.security.redis_servers import acl_server

from trireme_coordinator.store import RedisRequestStore, layout
from trireme_coordinator.store.lease import RedisLease
from trireme_coordinator.store.requests import Start
from trireme_proto.errors import Internal, StartupError
from trireme_worker import page_redis
from trireme_worker.page_value import PageIdentity, opened

HASH_FIELDS = ("created", "last_used", "ttl", "count", "missing", "model", "pack")


@pytest.fixture
async def store() -> AsyncIterator[RedisRequestStore]:
    with acl_server() as server:
        made = RedisRequestStore(server.url, MODEL)
        yield made
        await made.close()


@pytest.fixture
async def raw(store: RedisRequestStore) -> Redis:
    return store._client


@pytest.fixture
def data(tmp_path: Path) -> AsyncIterator[bytes]:
    mark = tmp_path / "went-off"
    yield bomb(mark)
    assert not mark.exists()


@pytest.mark.parametrize("field", HASH_FIELDS)
async def test_in_a_sessions_fields(store: RedisRequestStore, raw: Redis, data: bytes, field: str) -> None:
    session_id = (await store.create()).session_id
    await raw.hset(layout.session_key(session_id), field, data)
    with pytest.raises(Internal, match="damaged"):
        await store.get(session_id)


async def test_in_tokens_requests_and_owners(store: RedisRequestStore, raw: Redis, data: bytes) -> None:
    session_id = (await store.create()).session_id
    await store.begin(session_id, "me", Start(0, 0, [1, 2, 3]))
    await raw.set(layout.owner_key(session_id), data)
    assert "me" not in (await store.load(session_id)).owner
    for key, field in ((layout.requests_key(session_id), "a-request"), (layout.requests_key(session_id), "#fence")):
        await raw.hset(key, field, data)
        with pytest.raises(Internal, match="damaged"):
            await store.load(session_id)
        await raw.hdel(key, field)
    await raw.set(layout.tokens_key(session_id), data)
    with pytest.raises(Internal, match="damaged"):
        await store.tokens(session_id)


async def test_in_the_index_and_in_names(store: RedisRequestStore, raw: Redis, data: bytes) -> None:
    await raw.zadd(layout.INDEX_USED, {data: 9e15})
    await raw.zadd(layout.INDEX_EXPIRES, {data: 1})
    found, _ = await store.list(10)
    assert found == []


async def test_in_leases(store: RedisRequestStore, raw: Redis, data: bytes) -> None:
    lease = RedisLease(_url(store), "x", "me")
    await raw.set(layout.leader_key("x"), data)
    await raw.set(layout.leader_key("x") + ":token", data)
    assert await lease.take() == 1  # as if nobody had it
    await raw.set(layout.leader_key("x") + ":next", data)
    assert await lease.somebody_stands_by()
    await lease.close()


async def test_in_the_page_store(store: RedisRequestStore, raw: Redis, data: bytes) -> None:
    identity = PageIdentity("a" * 64, 0, 1, "float32")
    pages = page_redis.RedisPages(page_redis.StoreSettings(_url(store), 10_000, 60), identity.stage, len(data))
    await raw.set(page_redis.SECRET, data)
    with pytest.raises(StartupError, match="damaged secret"):
        page_redis.shared_secret(_url(store))
    await raw.hset(page_redis.STAGES, data, data)
    name = identity.name(bytes(32))
    await raw.set(page_redis.page_key(name), data)
    assert opened(name, pages.read([name])[0], len(data) - 16) is None
    pages.write([(name, 0, memoryview(bytes(len(data))))])
    pages.close()


def _url(store: RedisRequestStore) -> str:
    kwargs = store._client.connection_pool.connection_kwargs
    return f"unix://{kwargs['username']}:{kwargs['password']}@{kwargs['path']}"
