"""Pages outlive the workers that made them: other workers of another coordinator go on from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.conftest import Serve
from tests.support.waiting import eventually

from trireme import AsyncClient, Generation
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store.layout import COMMANDS
from trireme_worker import page_redis

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
FIRST = "Once upon a time, there was a little girl who lived in a house near the sea."


@pytest.fixture
def shared() -> Iterator[str]:
    """One Redis for sessions and pages."""
    with EmbeddedRedis(commands=(*COMMANDS, *page_redis.COMMANDS)) as server:
        yield server.url


async def ask(client: AsyncClient, text: str | list[int], session: str | None = None) -> Generation:
    return await client.generate(text, session=session, max_tokens=40, temperature=0.0, ignore_eos=True).result()


async def test_a_session_is_restored_by_other_workers(serve: Serve, shared: str) -> None:
    async with serve(stages=2, redis_url=shared, kv_store_gb=1) as (server, client):
        first = await ask(client, FIRST)
        history = [*await client.tokenize(FIRST), *first.token_ids]
        expected = await ask(client, [*history, *await client.tokenize(FIRST, add_bos=False)])
        assert server.engine.pipeline is not None
        pipeline = server.engine.pipeline

        async def all_written() -> bool:
            return not any(r is None or r.pages.waiting_bytes for r in await pipeline.reports())

        await eventually(all_written)
        assert all(r and r.pages.written for r in await server.engine.pipeline.reports())
    async with serve(stages=2, redis_url=shared, kv_store_gb=1) as (server, client):
        again = await ask(client, FIRST, first.session_id)
        assert again.usage.cached_tokens >= len(history) // 16 * 16
        assert again.token_ids == expected.token_ids
