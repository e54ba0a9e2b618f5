"""What is asyncio's own: cancellation, the loop a client belongs to, many streams at once."""

import asyncio

import pytest

from trireme import AsyncClient, errors
from trireme.testing import FakeServer
from trireme_proto.v1 import inference_pb2 as inference


@pytest.fixture
async def client(server):
    async with AsyncClient(server.target, timeout=20) as connected:
        yield connected


async def ended(call):
    assert await asyncio.to_thread(call.wait_ended)
    return call.outcome


async def test_a_cancelled_task_gets_its_cancellation_and_takes_the_request_along(client, server):
    server.hold_next(after=1)
    waiting = asyncio.Event()

    async def read():
        async for _ in client.generate("x"):
            waiting.set()

    task = asyncio.create_task(read())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ended(server.calls[0]) == "cancelled"


async def test_a_timeout_of_asyncio_is_one(client, server):
    server.hold_next()
    bound = asyncio.timeout(None)

    async def expire():
        await asyncio.to_thread(server.wait_call, timeout=60)
        bound.reschedule(0)

    expiring = asyncio.create_task(expire())
    with pytest.raises(TimeoutError):
        async with bound:
            await client.generate("x").result()
    await expiring
    assert await ended(server.calls[0]) == "cancelled"


async def test_cancelling_a_stream_does_not_cancel_the_task(client, server):
    server.hold_next(after=1)
    stream = client.generate("x")
    await anext(stream)
    stream.cancel()
    with pytest.raises(errors.Cancelled):
        await anext(stream)
    assert asyncio.current_task().cancelling() == 0
    assert await ended(server.calls[0]) == "cancelled"


async def test_cancelling_a_stream_from_another_task(client, server):
    server.hold_next(after=1)
    stream = client.generate("x")
    await anext(stream)
    reader = asyncio.create_task(stream.result())
    await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(errors.Cancelled):
        await reader


async def test_cancelling_while_waiting_to_try_again(client, server):
    server.fail_next(errors.Overloaded("Full.", retry_after=15))
    stream = client.generate("x")
    reader = asyncio.create_task(stream.result())
    await asyncio.to_thread(lambda: server.wait_call().wait_ended())
    await client.status()  # the refusal was sent before this reply: it has arrived
    stream.cancel()
    with pytest.raises(errors.Cancelled):
        await reader
    assert len(server.calls) == 1


async def test_leaving_the_block_early_cancels(client, server):
    server.hold_next(after=1)
    async with client.generate("x") as stream:
        async for _ in stream:
            break
    assert await ended(server.calls[0]) == "cancelled"


async def test_leaving_the_block_at_the_end_does_not(client, server):
    async with client.generate("x") as stream:
        await stream.result()
    assert stream.finish_reason == "eos"
    assert await ended(server.calls[0]) == "finished"


async def test_closing_the_client_cancels_its_streams(server):
    server.hold_next(after=1)
    client = AsyncClient(server.target)
    stream = client.generate("x")
    await anext(stream)
    reader = asyncio.create_task(stream.result())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(errors.Cancelled):
        await reader
    assert await ended(server.calls[0]) == "cancelled"


async def test_closing_the_client_cancels_its_other_calls(server):
    server.hold_next(method="Status")
    client = AsyncClient(server.target)
    asking = asyncio.create_task(client.status())
    await client.generate("x").result()
    await client.close()
    with pytest.raises(errors.Cancelled):
        await asking


async def test_a_stream_with_a_gap_is_cancelled_on_the_server(client, server):
    server.answer_next(inference.GenerateResponse(index=1, token_ids=[5]), hold=True)
    stream = client.generate("x")
    with pytest.raises(errors.Internal):
        await anext(stream)
    assert await ended(server.calls[0]) == "cancelled"


async def test_requests_are_under_way_at_once(client, server):
    for _ in range(3):
        server.hold_next(after=1)
    held = [client.generate("x") for _ in range(3)]
    for stream in held:
        await anext(stream)
    answers = await asyncio.gather(*(client.generate(f"{n}", max_tokens=5).result() for n in range(8)))
    assert [len(answer.token_ids) for answer in answers] == [5] * 8
    assert (await client.status()).load.running == 3
    for stream in held:
        stream.cancel()


async def test_a_slow_reader_gets_everything_that_came_before_an_error(client, server):
    server.fail_next(errors.Internal("A fault."), after=3)
    stream = client.generate("x")
    await asyncio.to_thread(lambda: server.wait_call().wait_ended())
    got = []

    async def read_slowly():
        async for chunk in stream:
            got.append(chunk.index)
            await client.status()

    with pytest.raises(errors.Internal):
        await read_slowly()
    assert got == [0, 1, 2]


def test_a_client_may_be_made_before_the_loop_and_belongs_to_the_first_one():
    client = None

    async def use():
        return (await client.generate("x", max_tokens=2).result()).token_ids

    with FakeServer() as server:
        client = AsyncClient(server.target)

        async def first():
            tokens = await use()
            await client.close()
            return tokens

        assert len(asyncio.run(first())) == 2

        client = AsyncClient(server.target)
        with asyncio.Runner() as runner:
            runner.run(use())
            with asyncio.Runner() as other, pytest.raises(RuntimeError, match="another event loop"):
                other.run(use())
            runner.run(client.close())


async def test_the_head_is_known_after_the_first_message(client, server):
    server.hold_next(after=1)
    async with client.generate("x", seed=9, request_id="mine") as stream:
        assert (stream.session_id, stream.request_id, stream.trace_id, stream.seed) == (None, None, None, None)
        await anext(stream)
        assert (stream.request_id, stream.seed, stream.finish_reason, stream.usage) == ("mine", 9, None, None)
        assert stream.session_id


async def test_the_fake_server_is_an_async_context_manager_too():
    async with FakeServer() as server, AsyncClient(server.target) as client:
        assert (await client.status()).ready
    async with AsyncClient(server.target) as client:
        with pytest.raises(errors.ServerUnreachable):
            await client.status()
