"""What a caller gives up is freed on every stage: pages, slots, and the books add up."""

from __future__ import annotations

import asyncio

import pytest
from tests.cluster.conftest import Serve

from trireme import AsyncClient, Status, errors

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def drained(client: AsyncClient) -> Status:
    """The status once nothing runs any more; sessions that keep their KV are deleted first."""
    async for session in client.sessions.list():
        try:
            await client.sessions.delete(session.session_id)
        except errors.SessionBusy:  # its request is just ending
            await asyncio.sleep(0.05)
            return await drained(client)
    while True:
        status = await client.status()
        if not any(stage.kv_pages_used for stage in status.stages) and not status.load.running + status.load.waiting:
            return status
        await asyncio.sleep(0.02)


def assert_empty(status: Status) -> None:
    assert [stage.kv_pages_used for stage in status.stages] == [0] * len(status.stages)
    assert [stage.slots_used for stage in status.stages] == [0] * len(status.stages)
    assert all(stage.integrity_ok for stage in status.stages)
    assert (status.load.running, status.load.waiting, status.load.kv_pages_reserved) == (0, 0, 0)


async def test_a_cancelled_stream_frees_its_pages_on_every_stage(serve: Serve) -> None:
    async with serve(stages=3, prefill_chunk=7) as (server, client):
        for tokens_before_leaving in (0, 1, 5):
            stream = client.generate([0] + [300] * 100, max_tokens=140, ignore_eos=True)
            async with stream:
                async for chunk in stream:
                    if chunk.index + len(chunk.token_ids) >= tokens_before_leaving:
                        assert (await client.status()).load.running == 1  # it was really running
                        break
            assert_empty(await asyncio.wait_for(drained(client), 20))
            assert server.engine.scheduler.check_integrity() == ""


async def test_a_deadline_frees_its_pages_on_every_stage(serve: Serve) -> None:
    async with serve(stages=2, prefill_chunk=1) as (server, client):
        with pytest.raises(errors.DeadlineExceeded):
            await client.generate([0] + [300] * 120, max_tokens=130, ignore_eos=True, timeout=0.15).result()
        assert_empty(await asyncio.wait_for(drained(client), 20))
        assert server.engine.scheduler.check_integrity() == ""


async def test_those_who_stay_are_not_disturbed(serve: Serve) -> None:
    async with serve(stages=2, prefill_chunk=7) as (_, client):
        calm = await client.generate("Once upon a time", max_tokens=60, temperature=0.0).result()
        stays = asyncio.ensure_future(client.generate("Once upon a time", max_tokens=60, temperature=0.0).result())
        for i in range(6):
            async with client.generate([0] + [300 + i] * 50, max_tokens=100, ignore_eos=True) as leaves:
                async for _ in leaves:
                    break
        assert (await stays).token_ids == calm.token_ids
