"""For a prompt, parameters and seed there is one answer: whatever the stages, threads, chunks and batch mates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.support.by_hand import answer_by_hand
from tests.support.pipeline import GREEDY, local_pipeline, sampled

from trireme_coordinator.scheduler import SamplingParams
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


async def test_every_stage_tells_its_times(pack: Pack) -> None:
    async with local_pipeline(pack, 3, chunk=7) as local:
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
