"""Redis dies or hangs under a server on a real cluster: the stream goes on, the conversation is whole afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.conftest import Serve
from tests.support.redis_faults import FaultyRedis
from tests.support.waiting import eventually

from trireme import errors

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
PROMPT = "Once upon a time, there was"


@pytest.mark.parametrize("fault", ["killed and started again", "stopped and continued"])
async def test_a_stream_outlives_redis(serve: Serve, tmp_path: Path, fault: str) -> None:
    killed = fault.startswith("killed")
    async with FaultyRedis(tmp_path) as redis, serve(stages=2, redis_url=redis.url) as (_, client):
        calm = await client.generate(PROMPT, max_tokens=60, temperature=0.0, ignore_eos=True).result()
        async with client.generate(PROMPT, max_tokens=60, temperature=0.0, ignore_eos=True) as stream:
            await anext(stream)
            redis.kill() if killed else redis.hang()
            answer = await stream.result()
        assert answer.token_ids == calm.token_ids
        with pytest.raises(errors.SessionStoreUnavailable):
            await client.sessions.create()
        assert not (await client.status()).session_store_ok
        redis.restart() if killed else redis.go_on()
        whole = (*await client.tokenize(PROMPT), *calm.token_ids)

        async def stored() -> bool:
            try:
                return (await client.sessions.get(answer.session_id, include_tokens=True)).token_ids == whole
            except errors.SessionStoreUnavailable:
                return False

        await eventually(stored)
        assert (await client.status()).session_store_ok
        more = await client.generate([7], session=answer.session_id, max_tokens=8, temperature=0.0).result()
        assert more.token_ids == (await client.generate([*whole, 7], max_tokens=8, temperature=0.0).result()).token_ids
