"""KV pages in a real Valkey: bounded in bytes, the least recently used goes first, everything expires."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.page_store import embedded_page_store
from trireme_proto.errors import StartupError
from trireme_worker.page_redis import (
    PREFIX,
    SECRET,
    STAGES,
    RedisPages,
    StoreSettings,
    StoreUnavailable,
    page_key,
    shared_secret,
    used_key,
)

SIZE = 1000


class FakeClock:
    """Nanoseconds; each question takes a millisecond."""

    now = 10**18

    def __call__(self) -> int:
        self.now += 10**6
        return self.now


CLOCK = FakeClock()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with embedded_page_store(10_000_000) as server:
        yield server


@pytest.fixture
def raw(server: EmbeddedRedis) -> Iterator[Redis]:
    client = Redis.from_url(server.url, driver_info=None)
    yield client
    for stage in client.hgetall(STAGES):
        key = used_key("").encode() + stage
        client.delete(key, *(page_key(name.decode()) for name in client.zrange(key, 0, -1)))
    client.delete(STAGES, SECRET)
    client.close()


def pages(server: EmbeddedRedis, *, budget: int = 10 * SIZE, stage: bytes = b"s", size: int = SIZE) -> RedisPages:
    return RedisPages(StoreSettings(server.url, budget, 60), stage, size, clock=CLOCK)


def values(names: str, size: int = SIZE) -> list[tuple[str, int, memoryview]]:
    return [(name, n, memoryview(name.encode() * size)) for n, name in enumerate(names)]


def test_what_is_written_is_read_and_expires(server: EmbeddedRedis, raw: Redis) -> None:
    one = pages(server)
    one.write(values("abc"))
    assert one.present("axc") == [True, False, True]
    assert [one.leading(names) for names in ("abc", "abx", "xab", "")] == [3, 2, 0, 0]
    assert one.read("bxa") == [b"b" * SIZE, b"", b"a" * SIZE]
    keys = [STAGES, used_key(b"s".hex()), *(page_key(name) for name in "abc")]
    assert all(raw.pexpire(key, 10**9, gt=True) for key in keys)  # refused for one that never expires
    one.close()


def test_a_value_that_is_too_long_is_not_read_to_its_end(server: EmbeddedRedis, raw: Redis) -> None:
    one = pages(server)
    raw.set(page_key("a"), b"a" * 5 * SIZE)
    assert len(one.read("a")[0]) == SIZE + 1
    raw.delete(page_key("a"))
    one.close()


def test_the_least_recently_used_goes_first(server: EmbeddedRedis, raw: Redis) -> None:
    one = pages(server)
    one.write(values("abcde"))
    one.write(values("fghij"))
    one.touch([("b", 0)])
    one.write(values("kl"))
    present = [name for name, there in zip("abcdefghijkl", one.present("abcdefghijkl"), strict=True) if there]
    assert present == list("abcfghijkl")  # of the first five the last pages went: they are of no use alone
    one.close()


def test_all_stages_share_the_budget(server: EmbeddedRedis, raw: Redis) -> None:
    """Also with one that has other sizes, and is no more."""
    old, new = pages(server, stage=b"old", size=2 * SIZE), pages(server, stage=b"new")
    old.write(values("ABCDE", 2 * SIZE))
    new.write(values("abc"))
    assert old.present("ABCDE") == [True, True, True, False, False]
    new.write(values("defghij"))
    assert old.present("ABCDE") == [False] * 5
    new.write(values("k"))
    assert [stage.decode() for stage in raw.hgetall(STAGES)] == [b"new".hex()]
    assert sum(new.present("abcdefghijk")) == 10
    assert raw.zcard(used_key(b"new".hex())) == 10
    old.close()
    new.close()


def test_books_of_somebody_else_are_survived(server: EmbeddedRedis, raw: Redis) -> None:
    raw.hset(STAGES, mapping={"zz": "x", "yy": "0", b"\xff": "7"})
    one = pages(server)
    one.write(values("ab"))
    assert one.present("ab") == [True, True]
    raw.hdel(STAGES, "zz", "yy")
    one.close()


def test_what_expired_leaves_the_books(server: EmbeddedRedis, raw: Redis) -> None:
    one = pages(server)
    raw.zadd(used_key(b"s".hex()), {"gone": 1.0})
    one.write(values("a"))
    assert raw.zrange(used_key(b"s".hex()), 0, -1) == [b"a"]
    one.close()


def test_the_user_can_do_nothing_else(server: EmbeddedRedis) -> None:
    with Redis.from_url(server.url, driver_info=None) as client:
        for forbidden in (
            ("get", "trireme:x"),
            ("keys", "*"),
            ("eval", "return 1", 0),
            ("flushall",),
            ("config", "get", "*"),
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*forbidden)
        with pytest.raises(NoPermissionError):
            client.set("other", 1)


def test_the_secret_is_made_once(server: EmbeddedRedis, raw: Redis) -> None:
    first = shared_secret(server.url)
    assert len(first) == 32
    assert shared_secret(server.url) == first
    raw.set(SECRET, b"short")
    with pytest.raises(StartupError, match=f"delete the key {SECRET}"):
        shared_secret(server.url)


def test_a_redis_that_is_not_there(server: EmbeddedRedis) -> None:
    url = "redis://:hidden@127.0.0.1:1/0"
    with pytest.raises(StartupError, match="Redis does not take KV pages") as error:
        shared_secret(url)
    assert "hidden" not in str(error.value)
    settings = StoreSettings(url, 1, 1)
    assert "hidden" not in repr(settings)
    one = RedisPages(settings, b"s", SIZE)
    for call in (lambda: one.present("a"), lambda: one.read("a"), lambda: one.write(values("a"))):
        with pytest.raises(StoreUnavailable):
            call()
    one.close()


def test_every_key_has_the_prefix_that_a_user_may_have() -> None:
    assert all(key.startswith("trireme:") for key in (PREFIX, STAGES, SECRET, page_key("a"), used_key("b")))
