"""A real Ray cluster of three nodes on this machine, and coordinators on it that answer over real gRPC.

Each node has a loopback address of its own (127.0.0.21 and on), so that stages on different nodes really listen on
different addresses. Nothing is stopped by name: other Ray clusters of this machine are left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from tests.support.ray_nodes import ray_nodes

from trireme import AsyncClient
from trireme_coordinator.app import Running, running
from trireme_coordinator.config import ServeConfig
from trireme_coordinator.embedded_redis import EmbeddedRedis

NODES = 3
Serve = Callable[..., AbstractAsyncContextManager[tuple[Running, AsyncClient]]]


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    with ray_nodes(NODES, first=21) as cluster:
        yield cluster.address


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def serve(ray_address: str, redis_url: str) -> Serve:
    """`async with serve(stages=2) as (server, client)`: a coordinator on the cluster, and a client of it."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[tuple[Running, AsyncClient]]:
        config = ServeConfig(**{"listen": "127.0.0.1:0", "ray_address": ray_address, "redis_url": redis_url} | settings)
        async with running(config, lambda _: None) as server, AsyncClient(server.address, timeout=60) as client:
            yield server, client

    return start
