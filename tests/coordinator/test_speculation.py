"""Guesses: where they come from, how many pay, and that no answer depends on them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_stages import EOS, FakePipeline
from tests.support.modelled import Modelled, line

from trireme_coordinator.scheduler import Finish, SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_coordinator.scheduler.cost import StepCost
from trireme_coordinator.scheduler.drafts import Drafts

CONTEXT = 300


def scheduler(*, stages: int = 2, pages: int = 200, chunk: int = 64, speculation: bool = True) -> Scheduler:
    return Scheduler(SchedulerConfig(stages, 8, pages, CONTEXT, chunk, 100, speculation=speculation))


def request(tokens: list[int], seed: int = 1, max_tokens: int = 60, session: str = "") -> Sequence:
    return Sequence(tokens, SamplingParams(0.0, 0, 1.0, seed), max_tokens, frozenset({EOS}), session)


def work(s: Scheduler, pipeline: FakePipeline, rounds: int = 3000) -> None:
    for _ in range(rounds):
        while (batch := s.schedule()) is not None:
            pipeline.send(batch)
        for stage in range(len(pipeline.stages)):
            pipeline.advance(stage)
        if (result := pipeline.result()) is not None:
            batch, _ = s.complete(*result)
            for row in batch.rows:
                if row.sequence.finish is not None:
                    s.drop(row.sequence)
        assert s.check_integrity() == ""


def test_what_followed_last_time() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 9, 2, 3, 4]
    assert Drafts().guess(tokens, 3, 0.0) == (5, 6, 9)
    assert Drafts().guess([1, 2, 3, 4, 2, 3, 9, 9, 2, 3], 2, 0.0) == (9, 9)  # of two times, the later one
    assert Drafts().guess([7, 2, 3, 4, 8, 2, 3, 5, 7, 2, 3], 1, 0.0) == (4,)  # a longer match before a later one
    assert Drafts().guess([1, 2, 3, 4], 3, 0.0) == ()
    assert Drafts().guess([1, 2, 1, 2, 1, 2], 5, 0.0) == (1, 2, 1, 2, 1)  # beyond the end it goes on repeating


def test_notes_are_kept_as_the_text_grows() -> None:
    drafts, tokens = Drafts(), [1, 2, 3]
    assert drafts.guess(tokens, 2, 0.0) == ()
    tokens += [4, 1, 2]
    assert drafts.guess(tokens, 2, 0.0) == (3, 4)


def test_how_many_pay() -> None:
    drafts, repeating = Drafts(), [1, 2] * 10
    assert [len(drafts.guess(repeating, 8, price)) for price in (0.6, 0.4, 0.2, 0.1, 0.0)] == [0, 1, 2, 3, 8]
    for _ in range(30):
        drafts.learn(4, 4)
    assert drafts.chance > 0.95
    assert len(drafts.guess(repeating, 8, 0.5)) == 8
    for _ in range(30):
        drafts.learn(1, 0)
    assert drafts.guess(repeating, 8, 0.1) == ()
    for _ in range(100):
        drafts.pays(0.3)
    assert len(drafts.guess(repeating, 8, 0.3)) == 1, "after a while it tries again"


def test_the_price_is_what_the_stages_take_for_a_token() -> None:
    cost = StepCost(1)
    cost.fixed, cost.per_token = 90.0, 10.0
    assert cost.price(1) == pytest.approx(0.1)
    assert cost.price(9) == pytest.approx(0.5)
    assert cost.price(0) == 0.0


@pytest.mark.parametrize(("per_token", "pays"), [(1, True), (1000, False)])
def test_guesses_are_made_where_stages_wait_for_memory_and_not_where_they_compute(per_token: int, pays: bool) -> None:
    """The modelled stages say the same token again and again, so that every guess is right."""
    config = SchedulerConfig(2, 8, 1000, 1 << 13, 64, 8)
    model = Modelled(Scheduler(config), [line(100 if pays else 1, per_token)] * 2)
    requests = [request([1, 2, 3, 4, 5 + i], max_tokens=4000) for i in range(8)]
    for i, one in enumerate(requests):
        model.arrive(10**5 * i // (1 if not pays else 100), one)  # steps of several sizes: their price is learnt
    model.run(lambda: requests[0].generated > 2000)
    drafted, generated = sum(one.drafted for one in requests), sum(one.generated for one in requests)
    assert (drafted > generated // 2) if pays else (drafted < generated // 20)


@given(
    prompts=st.lists(st.tuples(st.integers(1, 80), st.integers(0, 99), st.integers(1, 80)), min_size=1, max_size=6),
    stages=st.integers(1, 3),
    chunk=st.integers(1, 100),
)
@settings(max_examples=60, deadline=None)
def test_the_same_answers_with_and_without(prompts: list[tuple[int, int, int]], stages: int, chunk: int) -> None:
    answers = []
    for speculation in (True, False):
        s = scheduler(stages=stages, pages=40, chunk=chunk, speculation=speculation)
        pipeline = FakePipeline(s.config)
        everybody = [request([1 + i % 5 for i in range(size)], seed, most) for size, seed, most in prompts]
        for one in everybody:
            s.submit(one)
        work(s, pipeline)
        assert s.idle()
        answers.append([(one.tokens, one.finish) for one in everybody])
        for one in everybody:
            assert one.accepted <= one.drafted
            assert speculation or not one.drafted
    assert answers[0] == answers[1]


def test_right_guesses_save_steps() -> None:
    steps = []
    for speculation in (True, False):
        s = scheduler(speculation=speculation)
        pipeline, one = FakePipeline(s.config), request([1 + i % 5 for i in range(40)], 7, 100)
        one.eos_token_ids = frozenset()
        s.submit(one)
        work(s, pipeline)
        steps.append(sum(1 for batch in pipeline.sent if batch.decodes))
        if speculation:
            rows = [row for batch in pipeline.sent for row in batch.rows if not row.prefill]
            assert one.drafted == sum(len(row.drafts) for row in rows)
            assert one.accepted == 99 - len(rows), "every right guess is a step less"
            assert max(len(row.drafts) for row in rows) <= 8
    assert steps[0] < 0.8 * steps[1]


def test_a_stop_in_the_middle_of_right_guesses_ends_there() -> None:
    s, one = scheduler(stages=1), request([5, 6, 7, 8] * 5, max_tokens=50, session="a")
    s.submit(one)
    first = s.schedule()
    assert first is not None
    s.complete(first.step, [(0, 5)])
    second = s.schedule()
    assert second is not None
    row = second.rows[0]
    assert row.drafts == (6, 7, 8)
    assert row.token_ids == [5, 6, 7, 8]
    _, told = s.complete(second.step, [(0, 6), (0, 7), (0, 9), (0, 1)])
    assert told == {one: [6, 7, 9]}, "the token after a wrong guess counts for nothing"
    assert (one.computed, one.accepted, one.drafted) == (23, 2, 3)
    s.finish(one, Finish.STOP, unread=2)
    assert (one.tokens[20:], one.computed) == ([5, 6], 21)
    s.drop(one)
    again = request([*one.tokens, 4], session="a")
    s.submit(again)
    third = s.schedule()
    assert third is not None
    assert (third.rows[0].position, third.rows[0].count) == (21, 2)


def test_an_end_of_text_among_right_guesses_is_the_end() -> None:
    s, one = scheduler(stages=1), request([5, 6, 7, EOS] * 5, max_tokens=50)
    s.submit(one)
    first = s.schedule()
    assert first is not None
    s.complete(first.step, [(0, 5)])
    second = s.schedule()
    assert second is not None
    assert s.complete(second.step, [(0, 6), (0, 7), (0, EOS), (0, 5)])[1] == {one: [6, 7]}
    assert one.finish is Finish.EOS


@pytest.mark.parametrize("left", [1, 2, 3])
def test_guesses_stay_within_what_is_reserved(left: int) -> None:
    s, one = scheduler(stages=1), request([5, 6, 7, 8] * 5, max_tokens=1 + left)
    s.submit(one)
    first = s.schedule()
    assert first is not None
    s.complete(first.step, [(0, 5)])
    second = s.schedule()
    assert second is not None
    assert len(second.rows[0].drafts) == left - 1


def test_nobody_guesses_while_a_prompt_is_prefilled() -> None:
    s, one = scheduler(stages=1), request([5, 6, 7, 8] * 5)
    s.submit(one)
    first = s.schedule()
    assert first is not None
    s.complete(first.step, [(0, 5)])
    s.submit(request([1, 2, 3]))
    second = s.schedule()
    assert second is not None
    assert [row.drafts for row in second.rows] == [(), ()]
