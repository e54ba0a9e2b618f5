"""Pings and INFO of a real Redis, and of one that has gone."""

from __future__ import annotations

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.metrics.redis_watch import RedisWatch
from trireme_coordinator.metrics.values import Histogram, Readings
from trireme_coordinator.store.layout import COMMANDS


async def looked(server: EmbeddedRedis, *, stop: bool = False) -> dict[str, float | Histogram]:
    """What is known after a look; after two where the server stops in between."""
    watch = RedisWatch(server.url, "sessions")
    await watch.look()
    if stop:
        server.stop()
        await watch.look()
    await watch._link.close()
    readings = Readings()
    watch.read(readings)
    assert all(each.labels == ("sessions",) for values in readings.by_name.values() for each in values)
    return {name.removeprefix("trireme_redis_"): values[0].value for name, values in readings.by_name.items()}


async def test_what_redis_says_of_itself() -> None:
    with EmbeddedRedis(max_memory_bytes=64 << 20) as server:
        found = await looked(server)
    assert found["up"] == 1
    assert isinstance(found["ping_seconds"], Histogram)
    assert found["ping_seconds"].count == 1
    assert found["max_memory_bytes"] == 64 << 20
    assert 1e5 < found["used_memory_bytes"] < 64 << 20
    assert found["connected_clients"] >= 1
    assert found["commands_total"] >= 1
    assert found["evicted_keys_total"] == 0


async def test_a_user_who_may_not_ask() -> None:
    with EmbeddedRedis(commands=[command for command in COMMANDS if command != "info"]) as server:
        found = await looked(server)
    assert found["up"] == 1
    assert set(found) == {"up", "ping_seconds"}


async def test_one_that_has_gone() -> None:
    with EmbeddedRedis() as server:
        found = await looked(server, stop=True)
    assert found["up"] == 0
    assert isinstance(found["ping_seconds"], Histogram)
    assert found["ping_seconds"].count == 1
    assert set(found) == {"up", "ping_seconds"}
