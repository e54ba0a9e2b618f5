"""The lease in Redis: one holder, rising tokens, expiry, and what is left when Redis forgets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from tests.support.waiting import eventually

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store.layout import leader_key
from trireme_coordinator.store.lease import RedisLease
from trireme_proto.errors import SessionStoreUnavailable

Contender = Callable[..., RedisLease]
SHORT = 0.05


@pytest.fixture
async def contender(server: EmbeddedRedis, request: pytest.FixtureRequest) -> AsyncIterator[Contender]:
    made: list[RedisLease] = []

    def make(owner: str, *, ttl_seconds: float = 60.0, url: str = "") -> RedisLease:
        made.append(RedisLease(url or server.url, request.node.name, owner, ttl_seconds=ttl_seconds))
        return made[-1]

    yield make
    for lease in made:
        await lease.close()


async def test_one_of_two_has_it(contender: Contender) -> None:
    one, two = contender("one"), contender("two")
    assert await one.take() == 1
    assert await two.take() == 0
    assert await one.keep(1)
    assert not await two.keep(1)
    assert await two.holder() == "one"


async def test_a_released_lease_is_taken_with_a_higher_token(contender: Contender) -> None:
    one, two = contender("one"), contender("two")
    await one.release(await one.take())
    assert await two.holder() == ""
    assert await two.take() == 2
    assert not await one.keep(1)
    await one.release(1)  # not ours any more: nothing happens
    assert await two.holder() == "two"


async def test_an_expired_lease_is_anybodys(contender: Contender) -> None:
    one, two = contender("one", ttl_seconds=SHORT), contender("two")
    assert await one.take() == 1

    async def taken() -> bool:
        return await two.take() == 2

    await eventually(taken)
    assert not await one.keep(1)


async def test_an_expired_lease_that_nobody_took_is_had_back(contender: Contender) -> None:
    one, two = contender("one", ttl_seconds=SHORT), contender("two")
    token = await one.take()

    async def expired() -> bool:
        return not await two.holder()

    await eventually(expired)
    assert await one.keep(token)
    assert await two.take() == 0


async def test_a_token_rises_above_what_the_stages_have_seen(contender: Contender) -> None:
    one, two = contender("one"), contender("two")
    token = await one.take()
    assert await one.rise(token, 70) == 71
    assert not await one.keep(token)
    assert await one.keep(71)
    assert await two.rise(71, 90) == 0
    await one.release(71)
    assert await two.take() == 72


async def test_who_stands_by_is_known_for_a_while(contender: Contender) -> None:
    one, two = contender("one", ttl_seconds=SHORT), contender("two", ttl_seconds=SHORT)
    assert not await one.somebody_stands_by()
    await one.stand_by()
    assert not await one.somebody_stands_by()  # oneself does not count
    await two.stand_by()
    assert await one.somebody_stands_by()

    async def gone() -> bool:
        return not await one.somebody_stands_by()

    await eventually(gone)


async def test_a_redis_that_is_gone_is_one_typed_error(contender: Contender) -> None:
    with EmbeddedRedis() as own:
        lease = contender("one", url=own.url)
        token = await lease.take()
    with pytest.raises(SessionStoreUnavailable):
        await lease.keep(token)
    with pytest.raises(SessionStoreUnavailable):
        await lease.take()


async def test_a_damaged_lease_is_written_over(contender: Contender, server: EmbeddedRedis, request) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(server.url) as raw:
        await raw.set(leader_key(request.node.name), b"\xff one")
        await raw.set(f"{leader_key(request.node.name)}:token", b"many")
    assert await contender("one").take() == 1
