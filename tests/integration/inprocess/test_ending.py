"""Answers that end early, sessions that keep their keys and values: what is held on the stages, and what is not."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.by_hand import answer_by_hand
from tests.support.listeners import Answer
from tests.support.pipeline import GREEDY, SLOTS, LocalPipeline, local_pipeline, sampled

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.self_test import one_token
from trireme_proto.errors import Overloaded, StartupError
from trireme_worker.pack import Pack

PROMPT = (0, *range(300, 340))


def _leave_at(tokens: int, local: LocalPipeline) -> Answer:
    """A request that is dropped from within the engine's own call, at its n-th token."""

    def on_token(answer: Answer) -> None:
        if len(answer.tokens) == tokens:
            local.drop(answer)

    return local.submit(PROMPT, 100, answer=Answer(on_token))


@pytest.mark.parametrize("stages", [1, 3])
async def test_dropped_in_prefill(pack: Pack, stages: int) -> None:
    async with local_pipeline(pack, stages, chunk=1) as local:
        leaves, stays = local.submit(PROMPT, 100), local.submit(PROMPT[:5], 20)
        await leaves.until(lambda a: 3 <= a.prefilled < len(PROMPT))
        local.drop(leaves)
        await stays.done()
        assert leaves.tokens == []
        assert leaves.events == ["admitted"]  # nothing is told to one who has left
        await local.emptied()


@pytest.mark.parametrize("stages", [1, 3])
async def test_dropped_in_decode(pack: Pack, stages: int) -> None:
    async with local_pipeline(pack, stages) as local:
        leaves, stays = local.submit(PROMPT, 150), local.submit(PROMPT, 20)
        await leaves.until(lambda a: len(a.tokens) >= 4)
        local.drop(leaves)
        seen = len(leaves.tokens)
        await stays.done()
        assert len(leaves.tokens) == seen
        await local.emptied()


async def test_dropped_by_its_own_listener(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        leaves, stays = _leave_at(3, local), local.submit(PROMPT, 20)
        assert await stays.done() == answer_by_hand(pack, PROMPT, 20, GREEDY)
        assert len(leaves.tokens) == 3
        assert leaves.reason is None
        await local.emptied()


async def test_dropped_while_waiting(pack: Pack) -> None:
    async with local_pipeline(pack, 2, queue=2) as local:
        runs = [local.submit(PROMPT[:3], 150) for _ in range(2)]
        await asyncio.gather(*(r.until(lambda a: len(a.tokens) >= 1) for r in runs))
        local.engine.scheduler.budget.reserve(local.engine.scheduler.budget.pages - 20)  # no room for another one
        waits = [local.submit(PROMPT, 100) for _ in range(2)]
        with pytest.raises(Overloaded) as refused:
            local.submit(PROMPT, 100)
        assert refused.value.retry_after
        for answer in waits:
            local.drop(answer)
        local.submit(PROMPT, 100)  # there is room in the queue again
        for answer in [*runs, *waits]:
            local.drop(answer)
        await local.all_reports(lambda report: report.slots_used == 0)
        assert [answer.events for answer in waits] == [[], []]


async def test_dropped_at_once_and_twice(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        answer = local.submit(PROMPT, 5)
        local.drop(answer)
        local.drop(answer)
        await local.submit(PROMPT, 3).done()
        assert answer.events == []
        await local.emptied()


async def test_many_come_and_go(pack: Pack) -> None:
    """More than there are slots, every other one leaves at another moment; the rest get their tokens."""
    async with local_pipeline(pack, 3, chunk=7) as local:
        answers = [local.submit(PROMPT[: 2 + i], 6, sampled(i)) for i in range(2 * SLOTS)]
        for i, answer in enumerate(answers[1::2]):
            await answers[0].until(lambda a, least=i // 3: len(a.tokens) >= min(least, 6))
            local.drop(answer)
        for i in (0, 14, 30):
            assert await answers[i].done() == answer_by_hand(pack, PROMPT[: 2 + i], 6, sampled(i))
        await asyncio.gather(*(answer.done() for answer in answers[::2]))
        await local.emptied()


@pytest.mark.parametrize("way", ["eos", "stop", "length", "context"])
async def test_why_answers_end(pack: Pack, way: str) -> None:
    expected = answer_by_hand(pack, PROMPT, 8, GREEDY)
    third = expected.index(expected[2])
    reasons = {"eos": Finish.EOS, "stop": Finish.STOP, "length": Finish.LENGTH, "context": Finish.CONTEXT}
    async with local_pipeline(pack, 2) as local:
        stop = Answer(lambda a: Finish.STOP if way == "stop" and len(a.tokens) == 3 else None)
        limit = {"length": 3, "context": 10_000}.get(way, 100)
        prompt = [0] * (pack.config.context - 3) if way == "context" else PROMPT
        eos = frozenset({expected[2]}) if way == "eos" else frozenset[int]()
        answer = local.submit(prompt, limit, eos=eos, answer=stop)
        tokens = await answer.done()
        assert answer.reason is reasons[way]
        assert len(tokens) == (third if way == "eos" else 3)
        if way != "context":
            assert tokens == expected[: len(tokens)]
        await local.emptied()


async def test_a_session_keeps_its_keys_and_values(pack: Pack) -> None:
    async with local_pipeline(pack, 2, chunk=7) as local:
        first = await local.submit(PROMPT, 6, session="s").done()
        held = len(PROMPT) + len(first) - 1  # the last token was never fed
        await local.all_reports(lambda report: report.kv_pages_used == -(-held // 16) and report.slots_used == 1)
        longer = [*PROMPT, *first, 500, 501]
        second = local.submit(longer, 6, session="s")
        assert await second.done() == answer_by_hand(pack, longer, 6, GREEDY)
        assert local.request(second).cached == held
        assert second.prefilled == len(longer) - held
        local.engine.forget("s")
        await local.emptied()


async def test_only_its_own_session_uses_them_and_only_for_what_they_hold(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        first = await local.submit(PROMPT, 6, session="s").done()
        longer = [*PROMPT, *first, 500]
        changed = [*PROMPT[:-1], 77, *first, 500]
        for tokens, session in ((longer, "t"), (longer, ""), (changed, "s"), (PROMPT[:20], "s")):
            answer = local.submit(tokens, 4, session=session)
            assert await answer.done() == answer_by_hand(pack, tokens, 4, GREEDY)
            alike = next((i for i, (a, b) in enumerate(zip(tokens, longer, strict=False)) if a != b), len(tokens) - 1)
            assert local.request(answer).cached == min(alike, len(PROMPT)) // 16 * 16  # full pages, which are shared
        for session in ("s", "t"):
            local.engine.forget(session)
        await local.emptied()


async def test_a_session_after_a_cancelled_request(pack: Pack) -> None:
    async with local_pipeline(pack, 2, chunk=7) as local:
        answer = local.submit(PROMPT, 60, session="s")
        await answer.until(lambda a: len(a.tokens) >= 3)
        local.drop(answer)
        longer = [*PROMPT, *answer.tokens, 500]
        again = local.submit(longer, 5, session="s")
        assert await again.done() == answer_by_hand(pack, longer, 5, GREEDY)
        assert local.request(again).cached == 0  # what a caller gives up is freed
        local.engine.forget("s")
        await local.emptied()


async def test_a_session_survives_a_lost_stage(pack: Pack) -> None:
    """What was kept is gone, and computed again."""
    async with local_pipeline(pack, 2) as local:
        first = await local.submit(PROMPT, 6, session="s").done()
        await local.stages[1].cut()
        longer = [*PROMPT, *first, 500]
        again = local.submit(longer, 5, session="s")
        assert await again.done() == answer_by_hand(pack, longer, 5, GREEDY)
        local.engine.forget("s")
        await local.emptied()


async def test_sessions_give_way_to_those_who_run(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        for i in range(SLOTS + 3):
            await local.submit(PROMPT[: 3 + i], 2, session=f"s{i}").done()
        assert local.engine.scheduler.budget.parked == SLOTS
        answers = [local.submit(PROMPT[:10], 5) for _ in range(SLOTS)]
        assert len({tuple(await answer.done()) for answer in answers}) == 1
        assert local.engine.scheduler.budget.parked < SLOTS


async def test_the_self_test(pack: Pack) -> None:
    async with local_pipeline(pack, 3) as local:
        await one_token(local.engine)
        await local.emptied()


async def test_the_self_test_of_an_engine_that_ends(pack: Pack) -> None:
    async with local_pipeline(pack, 1) as local:
        local.engine.scheduler.budget.reserve(local.engine.scheduler.budget.pages)  # nothing can run
        test = asyncio.ensure_future(one_token(local.engine))
        await asyncio.sleep(0)  # it has submitted its request now
        local.engine._listeners.fail_all(Overloaded("for the test"))
        with pytest.raises(StartupError, match="for the test"):
            await test
