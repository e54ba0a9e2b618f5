"""Stores to run tests on: one in memory, one on a real Valkey server that the tests start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.coordinator.store.backends import Backend, MemoryBackend, RedisBackend

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store.layout import COMMANDS


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as started:
        yield started


@pytest.fixture
def open_server() -> Iterator[EmbeddedRedis]:
    """A server whose user may look at what the session store itself never looks at."""
    with EmbeddedRedis(commands=(*COMMANDS, "pttl", "scan")) as started:
        yield started


@pytest.fixture
async def on_redis(server) -> AsyncIterator[RedisBackend]:
    backend = RedisBackend(server.url)
    yield backend
    await backend.close()


@pytest.fixture(params=["memory", "redis"])
async def backend(request) -> AsyncIterator[Backend]:
    if request.param == "memory":
        yield MemoryBackend()
        return
    redis = RedisBackend(request.getfixturevalue("server").url)
    yield redis
    await redis.close()
