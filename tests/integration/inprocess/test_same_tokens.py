"""For a prompt, parameters and seed there is one answer: whatever the stages, threads, chunks and batch mates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.support.by_hand import answer_by_hand
from tests.support.pipeline import GREEDY, LocalPipeline, local_pipeline, sampled

from trireme_coordinator.scheduler import Batch, SamplingParams
from trireme_worker.pack import Pack

ANSWER = 16
REQUESTS: list[tuple[list[int], SamplingParams]] = [
    ([0, *range(300 + 7 * i, 300 + 7 * i + 5 * i + 1)], GREEDY if i % 2 == 0 else sampled(1000 + i)) for i in range(8)
]
"""Eight prompts of 2 to 37 tokens, every other one sampled."""


@pytest.fixture(scope="module")
def by_hand(pack: Pack) -> list[list[int]]:
    return [answer_by_hand(pack, prompt, ANSWER, sampling) for prompt, sampling in REQUESTS]


def test_the_answers_are_worth_comparing(by_hand: list[list[int]]) -> None:
    assert len({tuple(answer) for answer in by_hand}) == len(REQUESTS)
    assert all(len(set(answer)) > 3 for answer in by_hand)


@pytest.mark.parametrize(("stages", "threads", "chunk"), [*itertools.product((1, 2, 3), (1, 2), (1, 7, 256))])
async def test_same_tokens(pack: Pack, by_hand: list[list[int]], stages: int, threads: int, chunk: int) -> None:
    async with local_pipeline(pack, stages, threads=threads, chunk=chunk) as local:
        together = [local.submit(prompt, ANSWER, sampling) for prompt, sampling in REQUESTS]
        assert [await answer.done() for answer in together] == by_hand
        for i in (4, 7):  # alone: a greedy one and a sampled one
            assert await local.submit(*_arguments(i)).done() == by_hand[i]
        await local.emptied()


@pytest.mark.parametrize("stages", [1, 2, 3])
async def test_going_ahead_changes_nothing(pack: Pack, by_hand: list[list[int]], stages: int) -> None:
    """Alone, a stream's next step is on its way before its token is known; ends by an end-of-text token, too."""
    async with local_pipeline(pack, stages) as local:
        batches = _schedules(local)
        found = [await local.submit(*_arguments(i)).done() for i in range(len(REQUESTS))]
        assert found == by_hand
        assert sum(row.follows > 0 for batch in batches for row in batch.rows) > len(REQUESTS) * ANSWER // 2
        prompt, sampling = REQUESTS[7]
        for session in ("", "kept"):
            eos = frozenset({by_hand[7][9]})
            ends = by_hand[7].index(by_hand[7][9])
            assert await local.submit(prompt, ANSWER, sampling, eos=eos, session=session).done() == by_hand[7][:ends]
        longer = [*prompt, *by_hand[7][:ends]]
        goes_on = await local.submit(longer, ANSWER - ends, sampling, session="kept").done()
        assert goes_on == by_hand[7][ends:]
        local.engine.forget("kept")
        await local.emptied()


def _schedules(local: LocalPipeline) -> list[Batch]:
    """Every micro-batch that is made from here on."""
    made: list[Batch] = []
    schedule = local.engine.scheduler.schedule

    def noted(now_ns: int | None = None) -> Batch | None:
        batch = schedule(now_ns)
        made.extend([batch] if batch else [])
        return batch

    local.engine.scheduler.schedule = noted  # type: ignore[method-assign]
    return made


async def test_joining_and_leaving_in_mid_answer_changes_nothing(pack: Pack, by_hand: list[list[int]]) -> None:
    async with local_pipeline(pack, 2, chunk=7) as local:
        first = local.submit(*_arguments(7))
        await first.until(lambda answer: len(answer.tokens) >= 3)
        leaves = local.submit(*_arguments(3))
        second = local.submit(*_arguments(6))
        await leaves.until(lambda answer: len(answer.tokens) >= 1)
        local.drop(leaves)
        assert [await first.done(), await second.done()] == [by_hand[7], by_hand[6]]
        await local.emptied()


@pytest.mark.parametrize("stages", [1, 2, 3])
async def test_guessing_changes_nothing(pack: Pack, stages: int) -> None:
    """Prompts that repeat themselves, so that guesses are made, greedy and sampled; some are right and some wrong."""
    prompts = [[0, *(list(range(300 + 9 * i, 305 + 9 * i)) * 4)] for i in range(4)]
    how = [GREEDY, SamplingParams(0.3, 10, 0.9, 5), SamplingParams(0.05, 0, 1.0, 6), GREEDY]
    expected = [answer_by_hand(pack, prompt, 40, each) for prompt, each in zip(prompts, how, strict=True)]
    for speculation in (True, False):
        async with local_pipeline(pack, stages, speculation=speculation) as local:
            alone = [await local.submit(p, 40, h).done() for p, h in zip(prompts, how, strict=True)]
            together = [local.submit(p, 40, h) for p, h in zip(prompts, how, strict=True)]
            assert alone == [await answer.done() for answer in together] == expected
            requests = [request for request, _ in local.answers]
            assert (sum(r.drafted for r in requests) > sum(r.accepted for r in requests) > 0) == speculation
            await local.emptied()


async def test_sharing_changes_nothing(pack: Pack) -> None:
    """Prompts with a common beginning, one after the other while the first ones still run."""
    common = [0, *range(300, 350)]
    prompts = [[*common, 400 + i, *range(500, 500 + 7 * i)] for i in range(4)]
    expected = [answer_by_hand(pack, prompt, ANSWER, sampled(i)) for i, prompt in enumerate(prompts)]
    async with local_pipeline(pack, 2, chunk=32) as local:
        first = local.submit(prompts[0], ANSWER, sampled(0))
        await first.until(lambda answer: len(answer.tokens) >= 1)
        others = [local.submit(prompt, ANSWER, sampled(i)) for i, prompt in enumerate(prompts) if i]
        assert [await answer.done() for answer in (first, *others)] == expected
        assert [local.request(answer).cached for answer in others] >= [48, 48, 48]
        await local.emptied()


async def test_every_stage_tells_its_times(pack: Pack) -> None:
    async with local_pipeline(pack, 3, chunk=7, speculation=False) as local:
        answer = local.submit(*_arguments(6))
        await answer.done()
        prompt = len(REQUESTS[6][0])
        assert (answer.prefilled, answer.decoded) == (prompt, ANSWER - 1)
        assert answer.events == ["admitted", "finished"]
        assert all(len(step) == 3 and all(stage.compute_ns for stage in step) for step in answer.timings)


def _arguments(i: int) -> tuple[list[int], int, SamplingParams]:
    return REQUESTS[i][0], ANSWER, REQUESTS[i][1]


def test_prompts_have_different_lengths() -> None:
    assert np.unique([len(prompt) for prompt, _ in REQUESTS]).size == len(REQUESTS)
