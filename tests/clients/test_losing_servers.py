"""Servers that stand in for each other are lost, refuse and come back; the caller of either client does not notice."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from trireme import AsyncClient, Client, errors
from trireme.testing import FakeServer
from trireme_proto.v1 import inference_pb2 as inference

EOS = inference.FINISH_REASON_EOS
ENGLISH = {"prompt": "x", "seed": 3, "max_tokens": 64}
HEAD = {"session_id": "fake-session-1", "request_id": "mine", "seed": 3}
NOT_LEADING = errors.NotLeading("Another one leads.", retry_after=0.01)
Call = Callable[..., Any]


@pytest.fixture
def pair() -> Iterator[tuple[FakeServer, FakeServer]]:
    with FakeServer() as one, FakeServer(beside=one) as two:
        yield one, two


@pytest.fixture(params=["blocking", "asyncio"])
def call(request, pair) -> Call:
    """`await call(lambda client: ...)` on a client of either kind that knows both servers; streams come as a pair of
    their chunks and themselves.
    """
    kind = {"blocking": _blocking, "asyncio": _asyncio}[request.param]

    def act(do: Callable[[Any], Any], **settings: Any) -> Any:
        target = settings.pop("target", [server.target for server in pair])
        return kind(do, target, {"timeout": 20} | settings)

    return act


async def _blocking(do, target, settings):
    def act():
        with Client(target, **settings) as client:
            value = do(client)
            return (list(value), value) if isinstance(value, Iterator) else value

    return await asyncio.to_thread(act)


async def _asyncio(do, target, settings):
    async with AsyncClient(target, **settings) as client:
        value = do(client)
        if inspect.isawaitable(value):
            value = await value
        return ([item async for item in value], value) if isinstance(value, AsyncIterator) else value


def english(client):
    return client.generate(**ENGLISH)


@pytest.fixture
def undisturbed(pair):
    with Client(pair[0].target) as client:
        answer = english(client).result()
    pair[0].calls.clear()
    return answer


def ids_and_text(chunks):
    return tuple(i for chunk in chunks for i in chunk.token_ids), "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("after", [*range(8), 40, 63, 64])
async def test_a_lost_answer_goes_on_where_it_was(call, pair, undisturbed, after):
    pair[0].lose_next(after=after)
    chunks, stream = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)
    assert (stream.token_ids, stream.text) == (undisturbed.token_ids, undisturbed.text)
    assert [chunk.index for chunk in chunks if chunk.token_ids] == list(range(64))
    assert (stream.finish_reason, stream.usage) == (undisturbed.finish_reason, undisturbed.usage)
    first, second = pair[0].calls[0].request, pair[1].calls[0].request
    assert first.request_id == second.request_id
    if after:
        assert (second.resume_index, second.session_id, second.sampling.seed) == (after, stream.session_id, 3)
    else:
        assert second == first  # nothing was promised yet


async def test_lost_again_and_again_at_random(call, pair, undisturbed):
    for after in (3, 1, 9):
        pair[0].lose_next(after=after)
        pair[1].lose_next(after=after + 1)
    chunks, _ = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)
    assert [server.calls[0].request.request_id for server in pair].count(pair[0].calls[0].request.request_id) == 2


@pytest.mark.parametrize(
    "error",
    [
        NOT_LEADING,
        errors.CoordinatorLeaving("Leaving.", retry_after=0.2),
        errors.PipelineUnavailable("Starting.", retry_after=2.0),
        errors.LeaseLost("Taken over."),
        errors.Unavailable("Closing."),
    ],
    ids=lambda error: error.reason,
)
@pytest.mark.parametrize("after", [0, 5])
async def test_a_server_that_cannot_is_left_for_the_next(call, pair, undisturbed, error, after):
    pair[0].fail_next(error, after=after)
    chunks, _ = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)
    assert [len(server.calls) for server in pair] == [1, 1]


async def test_a_seed_that_the_server_drew_is_kept(call, pair):
    pair[0].lose_next(after=4)
    _, stream = await call(lambda client: client.generate("x", max_tokens=9))
    assert pair[1].calls[0].request.sampling.seed == stream.seed
    assert len(stream.token_ids) == 9


NO_RECORD = errors.RequestNotFound("There is no record of this request.")


@pytest.mark.parametrize("after", [0, 1, 5, 63, 64])
async def test_a_request_that_the_store_never_heard_of_is_generated_again(call, pair, undisturbed, after):
    """The server was lost after it had begun to answer and before anything was stored."""
    pair[0].lose_next(after=after)
    if after:
        pair[1].fail_next(NO_RECORD)
    chunks, stream = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)
    assert [chunk.index for chunk in chunks if chunk.token_ids] == list(range(64))
    assert (stream.finish_reason, stream.usage) == (undisturbed.finish_reason, undisturbed.usage)
    again = [*pair[0].calls, *pair[1].calls]
    assert [sent.request.HasField("resume_index") for sent in again].count(True) == bool(after)
    assert len({sent.request.request_id for sent in again}) == 1


async def test_a_request_that_is_generated_again_finds_the_server_that_leads(call, pair, undisturbed):
    """Between two attempts another server is asked, which stands by: the next one still asks for all of the answer."""
    pair[0].lose_next(after=5)
    pair[1].fail_next(NO_RECORD)
    pair[0].fail_next(errors.NotLeading("This coordinator stands by."))
    pair[1].fail_next(errors.NotLeading("This coordinator stands by."))
    chunks, stream = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)
    assert stream.finish_reason == undisturbed.finish_reason
    again = [*pair[0].calls, *pair[1].calls]
    assert [sent.request.HasField("resume_index") for sent in again].count(True) == 1


NO_SESSION = errors.SessionNotFound("There is no such session.")


@pytest.mark.parametrize("after", [1, 5, 64])
async def test_a_new_session_that_the_store_never_heard_of_is_made_again(call, pair, undisturbed, after):
    pair[0].lose_next(after=after)
    pair[1].fail_next(NO_SESSION)
    chunks, stream = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)
    assert stream.finish_reason == undisturbed.finish_reason
    last = max((*pair[0].calls, *pair[1].calls), key=lambda sent: not sent.request.session_id)
    assert last.request.session_id == ""
    assert pair[0].store.get(stream.session_id).requests


async def test_a_session_that_the_caller_named_must_be_there(call, pair):
    session = await call(lambda client: client.sessions.create())
    pair[0].lose_next(after=3)
    pair[1].fail_next(NO_SESSION)
    with pytest.raises(errors.SessionNotFound):
        await call(lambda client: client.generate(**ENGLISH, session=session.session_id))


async def test_a_refused_resumption_is_tried_again(call, pair, undisturbed):
    pair[0].lose_next(after=4)
    pair[1].fail_next(errors.SessionBusy("Still running elsewhere.", retry_after=0.01))
    pair[0].fail_next(errors.SessionStoreUnavailable("Redis does not answer."))
    chunks, _ = await call(english)
    assert ids_and_text(chunks) == (undisturbed.token_ids, undisturbed.text)


async def test_without_patience_a_loss_is_an_error_and_what_came_stays(call, pair):
    pair[0].lose_next(after=4)
    seen = []

    def act(client):
        seen.append(english(client))
        return seen[0]

    with pytest.raises(errors.ServerUnreachable, match="was lost"):
        await call(act, patience=0)
    assert len(seen[0].token_ids) == 4
    assert not pair[1].calls


async def test_when_patience_ends_the_reason_is_told(call, pair):
    for server in pair:
        server.refuse_all(NOT_LEADING)
    with pytest.raises(errors.NotLeading, match="Another one leads"):
        await call(english, patience=0.3)
    with pytest.raises(errors.NotLeading):
        await call(lambda client: client.tokenize("x"), patience=0.3)


async def test_the_deadline_bounds_it(call, pair):
    for server in pair:
        server.refuse_all(NOT_LEADING)
    with pytest.raises((errors.NotLeading, errors.DeadlineExceeded)):
        await call(english, timeout=0.4)


async def test_nobody_at_any_address_is_said_at_once(call, pair):
    for server in pair:
        server.stop()
    with pytest.raises(errors.ServerUnreachable, match=f"{pair[0].target},{pair[1].target}"):
        await call(english, patience=1000, timeout=None)


async def test_a_server_that_was_there_is_waited_for(call, pair):
    pair[0].refuse_all(errors.Unavailable("Restarting."))
    back = threading.Timer(0.3, pair[0].refuse_all, [None])
    back.start()
    chunks, _ = await call(english, target=pair[0].target)
    back.join()
    assert len(ids_and_text(chunks)[0]) == 64
    assert len(pair[0].calls) > 2


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"index": 5}], "jumps to token 5 where token 3 was due"),
        ([{"index": 2}, {"index": 2, "token_ids": [1, 2]}], "jumps to token 2 where token 3 was due"),
        ([{"index": 2}, {"index": 2, "finish_reason": EOS}], "jumps to token 2 where token 3 was due"),
        ([{"index": 3}, {"index": 4, "token_ids": [1]}], "jumps to token 4 where token 3 was due"),
        ([{"index": 3, "seed": 4}], "its seed differs"),
        ([{"index": 3, "session_id": "another"}], "its session_id differs"),
        ([{"index": 0}, {"index": 0, "token_ids": [1, 2, 3]}], "token 0 differs"),
    ],
    ids=str,
)
async def test_a_resumption_that_goes_on_wrongly_is_an_internal_error(call, pair, messages, said):
    pair[0].lose_next(after=3)
    first, *rest = messages
    pair[1].answer_next(*(inference.GenerateResponse(**each) for each in [HEAD | first, *rest]))
    with pytest.raises(errors.Internal, match=said):
        await call(lambda client: client.generate(**ENGLISH, request_id="mine"))


async def test_what_comes_twice_is_delivered_once(call, pair, undisturbed):
    """From a server that begins before the token that was asked for."""
    ids = undisturbed.token_ids
    pair[0].lose_next(after=2)
    pair[1].answer_next(
        inference.GenerateResponse(index=0, **HEAD | {"session_id": "fake-session-2"}),
        inference.GenerateResponse(index=0, token_ids=ids[:1], text="twice"),
        inference.GenerateResponse(index=1, token_ids=ids[1:2], text="twice"),
        inference.GenerateResponse(index=2, token_ids=[7], text="once"),
        inference.GenerateResponse(index=3, finish_reason=EOS),
    )
    chunks, _ = await call(lambda client: client.generate(**ENGLISH, request_id="mine"))
    got, text = ids_and_text(chunks)
    assert got == (*ids[:2], 7)
    assert text.endswith("once")
    assert "twice" not in text


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize", "Status", "Create", "Get", "List", "Delete"])
@pytest.mark.parametrize("how", ["lost", "refused"])
async def test_other_calls_are_asked_again_elsewhere(call, pair, method, how):
    with Client(pair[0].target) as client:
        session = client.sessions.create().session_id
    acts = {
        "Tokenize": lambda client: client.tokenize("x"),
        "Detokenize": lambda client: client.detokenize([1]),
        "Status": lambda client: client.status(),
        "Create": lambda client: client.sessions.create(),
        "Get": lambda client: client.sessions.get(session),
        "List": lambda client: client.sessions.list(),
        "Delete": lambda client: client.sessions.delete(session),
    }
    pair[0].lose_next(method=method) if how == "lost" else pair[0].fail_next(NOT_LEADING, method=method)
    pair[1].fail_next(errors.CoordinatorLeaving("Leaving."), method=method)
    await call(acts[method])


async def test_a_session_that_a_lost_call_deleted_is_deleted(call, pair):
    with Client(pair[0].target) as client:
        session = client.sessions.create().session_id
        client.sessions.delete(session)
    pair[0].lose_next(method="Delete")
    await call(lambda client: client.sessions.delete(session))
    with pytest.raises(errors.SessionNotFound):
        await call(lambda client: client.sessions.delete(session))


async def test_all_calls_of_a_client_go_where_the_last_one_found_somebody(call, pair):
    pair[0].refuse_all(NOT_LEADING)

    def act(client):
        if isinstance(client, Client):
            return [client.tokenize(text) for text in "abc"]
        return asyncio.wait_for(_one_after_the_other(client), 20)

    async def _one_after_the_other(client):
        return [await client.tokenize(text) for text in "abc"]

    assert len(await call(act)) == 3
    pair[0].refuse_all(None)
    await call(english)


@pytest.mark.parametrize("target", ["a:1,b:2", ["a:1", "b:2"], ("a:1", "b:2")])
def test_several_addresses(target):
    assert Client(target).target == "a:1,b:2"
    assert AsyncClient(target).target == "a:1,b:2"


@pytest.mark.parametrize("target", ["a:1,", ",a:1", ["a:1", ""], "a:1, b:2"])
def test_an_address_among_several_that_is_none(target):
    with pytest.raises(errors.ConfigurationError, match="HOST:PORT"):
        Client(target)
