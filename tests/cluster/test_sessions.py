"""A session goes on where it was: on the same server, and on another one after the first and its workers are gone."""

from __future__ import annotations

import asyncio

import pytest
from tests.cluster.conftest import Serve

from trireme import AsyncClient, Generation, errors

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
FIRST, SECOND, THIRD = "Once upon a time, there was", " One day,", " In the end,"


async def ask(client: AsyncClient, text: str | list[int], session: str | None = None) -> Generation:
    return await client.generate(text, session=session, max_tokens=20, temperature=0.0, ignore_eos=True).result()


async def test_a_conversation_continues_and_survives_a_restart(serve: Serve) -> None:
    async with serve(stages=2) as (_, client):
        first = await ask(client, FIRST)
        second = await ask(client, SECOND, first.session_id)
        assert second.session_id == first.session_id
        assert (
            second.usage.cached_tokens
            == second.usage.prompt_tokens - len(await client.tokenize(SECOND, add_bos=False)) - 1
        )
        history = list((await client.sessions.get(first.session_id, include_tokens=True)).token_ids)
        expected = [
            *await client.tokenize(FIRST),
            *first.token_ids,
            *await client.tokenize(SECOND, add_bos=False),
            *second.token_ids,
        ]
        assert history == expected
        whole = await ask(client, [*history, *await client.tokenize(THIRD, add_bos=False)])
    async with serve(stages=3) as (_, client):  # another coordinator, other workers, the same Redis
        third = await ask(client, THIRD, first.session_id)
        assert third.usage.cached_tokens == 0
        assert third.token_ids == whole.token_ids  # exactly as if the conversation had been one prompt


async def test_an_unknown_session_is_not_found(serve: Serve) -> None:
    async with serve() as (_, client):
        with pytest.raises(errors.SessionNotFound):
            await ask(client, FIRST, "no-such-session")


async def test_one_request_at_a_time_on_a_session(serve: Serve) -> None:
    async with serve() as (_, client):
        session = (await client.sessions.create()).session_id
        stream = client.generate(FIRST, session=session, max_tokens=200, ignore_eos=True)
        async with stream:
            await anext(aiter(stream))
            with pytest.raises(errors.SessionBusy):
                await ask(client, SECOND, session)
        await asyncio.sleep(0)
