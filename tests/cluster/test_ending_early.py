"""What a caller gives up is freed on every stage: pages, slots, and the books add up."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.cluster.conftest import Serve

from trireme import AsyncClient, Status, errors

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LONG = [0] + [300] * 100
PAUSE_SECONDS = 0.02


async def soon(client: AsyncClient, *, slots: int) -> Status:
    """The status once every stage holds so many slots and nothing runs; after a minute, the status as it is."""
    deadline = time.monotonic() + 60
    while True:
        status = await client.status()
        settled = all(stage.slots_used == slots for stage in status.stages) and not status.load.running
        if settled or time.monotonic() > deadline:
            return status
        await asyncio.sleep(PAUSE_SECONDS)


def assert_empty(status: Status) -> None:
    assert [stage.kv_pages_used for stage in status.stages] == [0] * len(status.stages)
    assert [stage.slots_used for stage in status.stages] == [0] * len(status.stages)
    assert all(stage.integrity_ok for stage in status.stages)
    assert (status.load.running, status.load.waiting, status.load.kv_pages_reserved) == (0, 0, 0)


async def test_a_cancelled_stream_frees_its_pages_on_every_stage(serve: Serve) -> None:
    async with serve(stages=3, prefill_chunk=7) as (server, client):
        for tokens_before_leaving in (0, 1, 5):
            async with client.generate(LONG, max_tokens=140, ignore_eos=True) as stream:
                async for chunk in stream:
                    if chunk.index + len(chunk.token_ids) >= tokens_before_leaving:
                        assert (await client.status()).load.running == 1  # it was really running
                        break
            assert_empty(await soon(client, slots=0))
            assert server.engine.scheduler.check_integrity() == ""


async def test_a_deadline_frees_its_pages_on_every_stage(serve: Serve) -> None:
    async with serve(stages=2, prefill_chunk=1) as (server, client):
        with pytest.raises(errors.DeadlineExceeded):
            await client.generate(LONG, max_tokens=150, ignore_eos=True, timeout=0.15).result()
        assert_empty(await soon(client, slots=0))
        assert server.engine.scheduler.check_integrity() == ""


async def test_a_finished_session_keeps_its_pages_until_it_is_deleted(serve: Serve) -> None:
    async with serve(stages=2) as (_, client):
        done = await client.generate(LONG, max_tokens=20, ignore_eos=True).result()
        status = await soon(client, slots=1)
        assert [stage.kv_pages_used for stage in status.stages] == [8, 8]  # 101 + 20 tokens, the last one not fed
        assert status.load.sessions_cached == 1
        await client.sessions.delete(done.session_id)
        assert_empty(await soon(client, slots=0))


async def test_those_who_stay_are_not_disturbed(serve: Serve) -> None:
    async with serve(stages=2, prefill_chunk=7) as (_, client):
        calm = await client.generate("Once upon a time", max_tokens=60, temperature=0.0).result()
        stays = asyncio.ensure_future(client.generate("Once upon a time", max_tokens=60, temperature=0.0).result())
        for i in range(6):
            async with client.generate([0] + [300 + i] * 50, max_tokens=100, ignore_eos=True) as leaves:
                async for _ in leaves:
                    break
        assert (await stays).token_ids == calm.token_ids
