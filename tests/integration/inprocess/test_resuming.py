"""A request that is sent again: generated once, resumed at any token by either coordinator, with the same text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from tests.support.coordinators import Coordinator, Heard, coordinator, identity
from tests.support.pipeline import local_pipeline
from tests.support.waiting import eventually

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.store import End, Loaded, RedisRequestStore, Start
from trireme_proto.errors import (
    InvalidRequest,
    LeaseLost,
    RequestConflict,
    RequestNotFound,
    RequestSuperseded,
    SessionBusy,
    SessionNotFound,
    StreamTakenOver,
)
from trireme_proto.v1 import inference_pb2 as pb
from trireme_worker.pack import Pack

LENGTH = 24
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "seed": 3},
    "sampled": {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "seed": 7},
    "bytes": {"temperature": 100.0, "top_k": 0, "top_p": 1.0, "seed": 11},  # many tokens that are parts of characters
}
END = End()


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def two(pack: Pack, redis: EmbeddedRedis) -> AsyncIterator[list[Coordinator]]:
    """Two coordinators, each with stages of its own, over one Redis."""
    async with AsyncExitStack() as stack:
        both = []
        for name in ("one", "two"):
            local = await stack.enter_async_context(local_pipeline(pack, 2))
            store = RedisRequestStore(redis.url, identity(pack), timeout_seconds=30.0)
            stack.push_async_callback(store.close)
            both.append(await stack.enter_async_context(coordinator(local, store, name)))
        yield both


def ask(kind: str = "sampled", text: str = "Once upon a time", **fields: Any) -> pb.GenerateRequest:
    sampling = pb.Sampling(**KINDS[kind])
    return pb.GenerateRequest(text=text, max_tokens=LENGTH, sampling=sampling, ignore_eos=True, **fields)


def again(request: pb.GenerateRequest, heard: Heard, index: int | None) -> pb.GenerateRequest:
    """The same request, for an answer of which some is there."""
    resumed = pb.GenerateRequest()
    resumed.CopyFrom(request)
    resumed.session_id, resumed.request_id = heard.first.session_id, heard.first.request_id
    if index is not None:
        resumed.resume_index = index
    return resumed


def check_rest(rest: Heard, whole: Heard, before: Heard, index: int) -> None:
    """What came before and the rest are the undisturbed answer, character by character."""
    assert rest.index == index
    assert before.token_ids[:index] + rest.token_ids == whole.token_ids
    assert rest.finish == whole.finish
    assert rest.usage is not None
    assert whole.usage is not None
    assert rest.usage.prompt_tokens == whole.usage.prompt_tokens
    assert rest.usage.completion_tokens == whole.usage.completion_tokens
    assert rest.first.seed == whole.first.seed
    if index == len(before.token_ids):
        assert before.text + rest.text == whole.text


def _start(loaded: Loaded) -> Start:
    """As of a coordinator that goes on with the request."""
    return Start(loaded.fence, len(loaded.tokens))


async def released(one: Coordinator, session_id: str) -> None:
    """Returns when nobody generates on the session any more, and what it got is stored."""

    async def holds() -> bool:
        return one.gate.running(session_id) is None

    await eventually(holds)
    await one.gate.writer.flush(session_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_cut_at_any_token_goes_on_at_either_coordinator(two: list[Coordinator], kind: str) -> None:
    whole = await two[0].hear(ask(kind))
    assert len(whole.token_ids) == LENGTH
    for cut in range(LENGTH):
        stream = two[cut % 2].send(ask(kind, request_id=f"cut-{cut}"))
        before = await stream.until(cut)
        stream.call.cancel()
        await released(two[cut % 2], before.first.session_id)
        index = len(before.token_ids)
        rest = await two[(cut // 2) % 2].hear(again(ask(kind), before, index))
        check_rest(rest, whole, before, index)
        assert (await two[0].tokens(before.first.session_id))[-LENGTH:] == whole.token_ids


@pytest.mark.parametrize("kind", KINDS)
async def test_a_complete_answer_is_replayed_from_any_index(two: list[Coordinator], kind: str) -> None:
    whole = await two[0].hear(ask(kind, request_id="r"))
    steps = two[0].engine.scheduler._step, two[1].engine.scheduler._step
    held = await two[0].tokens(whole.first.session_id)
    texts = []
    for index in range(LENGTH + 1):
        rest = await two[index % 2].hear(again(ask(kind), whole, index))
        check_rest(rest, whole, whole, index)
        assert rest.usage == whole.usage
        assert whole.text.endswith(rest.text)
        texts.append(rest.text)
    assert texts[0] == whole.text
    assert (await two[1].hear(again(ask(kind), whole, None))).text == whole.text
    assert await two[1].tokens(whole.first.session_id) == held
    assert (two[0].engine.scheduler._step, two[1].engine.scheduler._step) == steps  # nothing was generated
    with pytest.raises(InvalidRequest, match="resume_index is 25; the answer has 24 tokens"):
        await two[0].hear(again(ask(kind), whole, LENGTH + 1))


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
async def test_a_stop_text_that_spans_the_cut(two: list[Coordinator], kind: str) -> None:
    whole = await two[0].hear(ask(kind))
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 12]  # several tokens long
    stopped = await two[0].hear(ask(kind, stop=[stop]))
    assert stopped.finish == pb.FINISH_REASON_STOP
    assert stopped.text == whole.text[: whole.text.index(stop)]
    count = len(stopped.token_ids)
    for cut in range(max(0, count - 6), count + 1):
        stream = two[0].send(ask(kind, stop=[stop]))
        before = await stream.until(cut)
        stream.call.cancel()
        await released(two[0], before.first.session_id)
        index = len(before.token_ids)
        rest = await two[1].hear(again(ask(kind, stop=[stop]), before, index))
        check_rest(rest, stopped, before, index)


@pytest.mark.parametrize("kind", [*KINDS, "stop"])
async def test_an_answer_goes_on_behind_whatever_the_log_holds(two: list[Coordinator], kind: str) -> None:
    """As after the sudden death of a coordinator: every number of tokens in the log, before and behind the index."""
    request = ask("greedy" if kind == "stop" else kind)
    if kind == "stop":
        request.stop.append((await two[0].hear(request)).text[30:44])
    whole = await two[0].hear(request)
    length = len(whole.token_ids)
    rests = [(await two[1].hear(again(request, whole, index))).text for index in range(length + 1)]
    loaded = await two[0].store.load(whole.first.session_id)
    record = replace(loaded.requests[whole.first.request_id], state="open", answer_tokens=0, cached_tokens=0)
    for logged in range(length + 1):
        session_id = (await two[0].store.create()).session_id
        prompt = loaded.tokens[: record.answer_start]
        fence = await two[0].store.begin(session_id, "gone", Start(0, 0, prompt, [record]))
        await two[0].store.commit(session_id, fence, len(prompt), whole.token_ids[:logged], END)
        index = (7 * logged) % (length + 1)
        resumed = again(request, whole, index)
        resumed.session_id = session_id
        rest = await two[logged % 2].hear(resumed)
        check_rest(
            rest, whole, Heard(token_ids=whole.token_ids[:index], text=whole.text.removesuffix(rest.text)), index
        )
        assert rest.text == rests[index]
        assert await two[0].tokens(session_id) == loaded.tokens
        assert (await two[0].store.load(session_id)).requests[record.request_id].complete


async def test_tokens_that_the_log_had_not_received_are_computed_again(two: list[Coordinator]) -> None:
    """As after the sudden death of the first: the log has the prompt and no more than some of the answer."""
    whole = await two[0].hear(ask())
    for logged in (0, 1, 9, LENGTH):
        stream = two[0].send(ask(request_id="r"))
        before = await stream.until(0)
        session_id = before.first.session_id
        run = two[0].gate.running(session_id)
        assert run is not None
        run.log.abandon()  # from now on it stores nothing
        before = await stream.end()
        held = await two[1].store.load(session_id)
        more = whole.token_ids[len(held.tokens) - run.record.answer_start : logged]
        if more:
            await two[1].store.commit(session_id, held.fence, len(held.tokens), more)
        await two[0].store.commit(session_id, held.fence, 0, [], END)  # its lease lapses
        for index in (0, 5, LENGTH):
            rest = await two[1].hear(again(ask(), before, index))
            check_rest(rest, whole, before, index)


async def test_a_drawn_seed_is_kept(two: list[Coordinator]) -> None:
    request = ask(request_id="0f1e2d3c4b5a6978" * 2)
    request.sampling.ClearField("seed")
    stream = two[0].send(request)
    before = await stream.until(1)
    session_id = before.first.session_id
    run = two[0].gate.running(session_id)
    assert run is not None
    run.log.abandon()  # no token of the answer reaches the log any more
    whole = await stream.end()
    held = await two[0].store.load(session_id)
    await two[0].store.commit(session_id, held.fence, len(held.tokens), [], END)
    rest = await two[1].hear(request)
    assert rest.first.seed == before.first.seed
    assert (rest.token_ids, rest.text) == (whole.token_ids, whole.text)


async def test_a_newer_call_takes_the_answer_over_and_generation_goes_on(two: list[Coordinator]) -> None:
    whole = await two[0].hear(ask("greedy"))
    older = two[0].send(ask("greedy", request_id="r"))
    before = await older.until(0)
    run = two[0].gate.running(before.first.session_id)
    assert run is not None
    newer = two[0].send(again(ask("greedy"), before, 3))
    await newer.until(0)
    if not run.generation.ended:
        assert two[0].gate.running(before.first.session_id) is run
    rest = await newer.end()
    check_rest(rest, whole, Heard(token_ids=whole.token_ids[:3], text=whole.text.removesuffix(rest.text)), 3)


async def test_the_older_stream_is_told(two: list[Coordinator]) -> None:
    budget = two[0].engine.scheduler.budget
    budget.reserve(budget.pages)  # the request cannot begin, so that its stream stays open
    older = two[0].send(ask(request_id="r"))
    before = await older.until(0)
    newer = two[0].send(again(ask(), before, None))
    first = await newer.until(0)
    with pytest.raises(StreamTakenOver):
        await older.end()
    assert first.first.session_id == before.first.session_id
    assert first.first.seed == before.first.seed
    assert two[0].engine.scheduler.waiting  # it was not given up with the older call
    newer.call.cancel()
    await released(two[0], before.first.session_id)
    assert not two[0].engine.scheduler.waiting


async def test_what_runs_on_a_living_coordinator_is_left_to_it(two: list[Coordinator]) -> None:
    budget = two[0].engine.scheduler.budget
    budget.reserve(budget.pages)
    stream = two[0].send(ask(request_id="r"))
    before = await stream.until(0)
    with pytest.raises(SessionBusy) as busy:
        await two[1].hear(again(ask(), before, 0))
    assert busy.value.retry_after == 0.5
    stream.call.cancel()
    await released(two[0], before.first.session_id)
    whole = await two[1].hear(again(ask(), before, 0))
    assert len(whole.token_ids) == LENGTH


async def test_an_owner_whose_lease_lapsed_is_fenced_off(two: list[Coordinator]) -> None:
    budget = two[0].engine.scheduler.budget
    budget.reserve(budget.pages)  # the request cannot begin, so that it is not over before its lease lapses
    stream = two[0].send(ask("greedy", request_id="r"))
    before = await stream.until(0)
    session_id = before.first.session_id
    run = two[0].gate.running(session_id)
    assert run is not None
    held = await two[0].store.load(session_id)
    await two[0].store.commit(session_id, held.fence, 0, [], END)  # as if its lease had lapsed
    loaded = await two[1].store.load(session_id)
    await two[1].store.begin(session_id, "two", _start(loaded))
    two[0].gate.writer.put(session_id, len(loaded.tokens), [5], held.fence)
    with pytest.raises(LeaseLost):
        await two[0].gate.writer.flush(session_id)
    assert (await two[1].store.load(session_id)).tokens == loaded.tokens
    stream.call.cancel()


async def test_a_lost_lease_ends_the_stream(two: list[Coordinator]) -> None:
    budget = two[0].engine.scheduler.budget
    budget.reserve(budget.pages)
    stream = two[0].send(ask(request_id="r"))
    before = await stream.until(0)
    session_id = before.first.session_id
    held = await two[0].store.load(session_id)
    await two[0].store.commit(session_id, held.fence, 0, [], END)
    loaded = await two[1].store.load(session_id)
    await two[1].store.begin(session_id, "two", _start(loaded))
    await two[0].gate.owner.renew()
    with pytest.raises(LeaseLost):
        await stream.end()
    await released(two[0], session_id)
    assert (await two[1].store.load(session_id)).owner == "two"


async def test_a_unique_request_id_finds_its_session(two: list[Coordinator]) -> None:
    """The first message was lost: the caller knows no session."""
    unique = "0123456789abcdef" * 2
    stream = two[0].send(ask(request_id=unique))
    before = await stream.until(2)
    stream.call.cancel()
    await released(two[0], before.first.session_id)
    whole = await two[1].hear(ask(request_id=unique))
    assert whole.first.session_id == before.first.session_id
    assert whole.token_ids[:2] == before.token_ids[:2]
    label = ask(request_id=unique[:31])
    assert (await two[0].hear(label)).first.session_id != (await two[1].hear(label)).first.session_id


async def test_many_callers_at_once_generate_once(two: list[Coordinator]) -> None:
    request = ask(request_id="fedcba9876543210" * 2)
    calls = [two[i % 2].hear(request) for i in range(6)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    whole = [outcome for outcome in outcomes if isinstance(outcome, Heard)]
    assert {type(outcome) for outcome in outcomes} <= {Heard, StreamTakenOver, SessionBusy}
    assert whole
    assert {heard.first.session_id for heard in whole} == {whole[0].first.session_id}
    assert {tuple(heard.token_ids) for heard in whole} == {tuple(whole[0].token_ids)}
    held = await two[0].tokens(whole[0].first.session_id)
    assert whole[0].usage is not None
    assert len(held) == whole[0].usage.prompt_tokens + LENGTH


async def test_what_was_never_sent_cannot_be_resumed(two: list[Coordinator]) -> None:
    whole = await two[0].hear(ask(request_id="r"))
    known = whole.first.session_id
    for request, error in (
        (ask(request_id="other", session_id=known, resume_index=0), RequestNotFound),
        (ask(request_id="r", resume_index=0), RequestNotFound),
        (ask(request_id="x" * 40, resume_index=0), SessionNotFound),
        (ask(request_id="r", session_id="nobody", resume_index=0), SessionNotFound),
    ):
        with pytest.raises(error):
            await two[0].hear(request)


async def test_other_content_is_refused(two: list[Coordinator]) -> None:
    whole = await two[0].hear(ask(request_id="r"))
    for other in (ask(text="Twice upon a time"), ask("greedy"), ask(stop=["x"]), ask(priority=9)):
        with pytest.raises(RequestConflict):
            await two[1].hear(again(other, whole, 0))
    other = again(ask(), whole, 0)
    other.sampling.seed = 8
    with pytest.raises(RequestConflict):
        await two[1].hear(other)
    other.sampling.ClearField("seed")
    assert (await two[1].hear(other)).token_ids == whole.token_ids


async def test_a_session_that_went_on_leaves_the_interrupted_request_behind(two: list[Coordinator]) -> None:
    stream = two[0].send(ask("greedy", request_id="r"))
    before = await stream.until(3)
    stream.call.cancel()
    await released(two[0], before.first.session_id)
    held = await two[0].tokens(before.first.session_id)
    if len(held) < 5 + LENGTH:  # else it was complete before it was left
        await two[1].hear(ask("greedy", " and then", request_id="s", session_id=before.first.session_id))
        with pytest.raises(RequestSuperseded):
            await two[0].hear(again(ask("greedy"), before, 3))
    assert (await two[0].tokens(before.first.session_id))[: len(held)] == held


async def test_a_prompt_without_an_answer_is_taken_back_by_the_next_request(two: list[Coordinator]) -> None:
    first = await two[0].hear(ask("greedy", request_id="a"))
    session_id = first.first.session_id
    held = await two[0].tokens(session_id)
    budget = two[0].engine.scheduler.budget
    slot = budget.reserve(budget.pages)
    stream = two[0].send(ask("greedy", " never", request_id="b", session_id=session_id))
    await stream.until(0)
    stream.call.cancel()
    await released(two[0], session_id)
    assert len(await two[0].tokens(session_id)) > len(held)
    assert slot is not None
    budget.free(slot[0])
    last = await two[1].hear(ask("greedy", " and", request_id="c", session_id=session_id))
    assert last.usage is not None
    tokens = await two[1].tokens(session_id)
    assert tokens[: len(held)] == held
    assert len(tokens) == last.usage.prompt_tokens + LENGTH
    assert last.usage.prompt_tokens < len(held) + 3
    with pytest.raises(RequestSuperseded):
        await two[0].hear(ask("greedy", " never", request_id="b", session_id=session_id))


async def test_a_refused_request_leaves_no_session_behind(two: list[Coordinator]) -> None:
    listed = await two[0].store.list(100)
    for request in (ask(request_id="y" * 32, text="x " * 2000), ask(text="x " * 2000)):
        with pytest.raises(InvalidRequest):
            await two[0].hear(request)
    assert await two[0].store.list(100) == listed
