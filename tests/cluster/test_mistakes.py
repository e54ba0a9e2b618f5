"""Each mistake of a user gets one clear sentence and the right status, and nothing else breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.cluster.conftest import Serve

from trireme import AsyncClient, errors
from trireme_coordinator.embedded_redis import EmbeddedRedis

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
GENERATE: list[tuple[dict[str, Any], type[errors.TriremeError], str]] = [
    ({"prompt": [0] * 256}, errors.PromptTooLong, "256"),
    ({"prompt": "word " * 300}, errors.PromptTooLong, "room"),
    ({"prompt": [4096]}, errors.InvalidRequest, "vocabulary"),
    ({"prompt": []}, errors.InvalidRequest, "empty"),
    ({"max_tokens": 0}, errors.InvalidRequest, "max_tokens"),
    ({"max_tokens": 257}, errors.InvalidRequest, "max_tokens"),
    ({"temperature": -0.5}, errors.InvalidRequest, "temperature"),
    ({"temperature": float("nan")}, errors.InvalidRequest, "temperature"),
    ({"top_p": 0.0}, errors.InvalidRequest, "top_p"),
    ({"top_p": 1.5}, errors.InvalidRequest, "top_p"),
    ({"top_k": 5000}, errors.InvalidRequest, "top_k"),
    ({"stop": [""]}, errors.InvalidRequest, "stop"),
    ({"stop": ["x"] * 9}, errors.InvalidRequest, "stop"),
    ({"session": "nobody-has-this"}, errors.SessionNotFound, "session"),
    ({"session": "../../etc"}, errors.InvalidRequest, "session_id"),
    ({"request_id": "a b"}, errors.InvalidRequest, "request_id"),
]


async def refused(client: AsyncClient, fields: dict[str, Any]) -> errors.TriremeError:
    with pytest.raises(errors.TriremeError) as caught:
        await client.generate(**({"prompt": "Once", "max_tokens": 4} | fields)).result()
    return caught.value


async def test_each_mistake_in_a_request_is_told_apart(serve: Serve) -> None:
    async with serve(stages=2) as (server, client):
        running = client.generate("Once upon a time", max_tokens=200, temperature=0.0, ignore_eos=True).result()
        undisturbed = asyncio.ensure_future(running)
        for fields, kind, word in GENERATE:
            error = await refused(client, fields)
            assert type(error) is kind, fields
            assert word in error.message, error.message
            assert "\n" not in error.message
            assert "/" not in error.message.replace("../../etc", "")  # no path of the server
        assert len((await undisturbed).token_ids) == 200
        assert server.engine.scheduler.check_integrity() == ""
        assert (await client.generate("Once", max_tokens=4).result()).token_ids


async def test_a_full_queue_says_when_to_come_back(serve: Serve) -> None:
    async with serve(slots=1, queue=1) as (_, client), AsyncClient(client.target, retries=0) as impatient:
        streams = [impatient.generate([0] * 8, max_tokens=240, ignore_eos=True).result() for _ in range(6)]
        results = await asyncio.gather(*streams, return_exceptions=True)
        refusals = [r for r in results if isinstance(r, errors.Overloaded)]
        assert refusals
        assert all(r.retry_after and r.retry_after > 0 for r in refusals)
        assert len(refusals) + sum(1 for r in results if not isinstance(r, Exception)) == 6


async def test_redis_lost_while_serving(serve: Serve) -> None:
    with pytest.raises(errors.SessionStoreUnavailable, match="not stored"):  # said again when the server ends
        await lose_redis(serve)


async def lose_redis(serve: Serve) -> None:
    redis = EmbeddedRedis()
    await asyncio.to_thread(redis.start)
    async with serve(redis_url=redis.url) as (_, client):
        async with client.generate("Once upon a time", max_tokens=150, temperature=0.0, ignore_eos=True) as stream:
            await anext(aiter(stream))
            await asyncio.to_thread(redis.stop)
            rest = [chunk async for chunk in stream]  # the answer that is under way does not notice
            assert sum(len(chunk.token_ids) for chunk in rest) > 100
        error = await refused(client, {})
        assert type(error) is errors.SessionStoreUnavailable
        assert not (await client.status()).session_store_ok


async def test_a_refused_request_leaves_no_session_behind(serve: Serve) -> None:
    async with serve() as (_, client):
        before = {session.session_id async for session in client.sessions.list()}
        assert isinstance(await refused(client, {"prompt": [0] * 256}), errors.PromptTooLong)
        assert {session.session_id async for session in client.sessions.list()} == before
