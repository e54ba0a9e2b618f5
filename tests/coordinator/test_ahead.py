"""A decode step that is sent before the token it continues is known: when, and what becomes of it."""

from __future__ import annotations

import pytest

from trireme_coordinator.scheduler import Batch, Finish, SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_coordinator.scheduler.cost import StepCost
from trireme_coordinator.scheduler.drafts import Drafts

EOS = 99


def scheduler(*, ahead: bool = True, gap: float = 0.5, speculation: bool = False) -> Scheduler:
    made = Scheduler(SchedulerConfig(2, 8, 80, 100, 10, 8, speculation=speculation, ahead=ahead))
    made.cost.gap = gap
    return made


def sequence(max_tokens: int = 10, session: str = "") -> Sequence:
    return Sequence([1, 2, 3], SamplingParams(0.0, 0, 1.0, 0), max_tokens, frozenset({EOS}), session)


def scheduled(s: Scheduler) -> Batch:
    batch = s.schedule()
    assert batch is not None
    return batch


def answer(s: Scheduler, batch: Batch, token: int = 7) -> dict[Sequence, list[int]]:
    return s.complete(batch.step, [(row.slot, token) for row in batch.rows if row.samples])[1]


def test_one_step_ahead_and_no_more() -> None:
    s, one = scheduler(), sequence()
    s.submit(one)
    prompt, ahead = scheduled(s), scheduled(s)
    (row,) = ahead.rows
    assert (row.follows, row.samples, row.prefill, row.position, row.count, ahead.token_ids) == (
        *(prompt.step, True, False),
        *(3, 1, (0,)),
    )
    assert row.certain == 3  # its own token is not known, so nobody can share it yet
    assert s.schedule() is None
    assert answer(s, prompt, 7) == {one: [7]}
    assert scheduled(s).rows[0].position == 4
    assert answer(s, ahead, 8) == {one: [8]}
    assert one.tokens == [1, 2, 3, 7, 8]


@pytest.mark.parametrize("others", ["waiting", "prefilling", "decoding"])
def test_nobody_waits_for_a_step_ahead(others: str) -> None:
    s = scheduler()
    for _ in range(8 if others == "waiting" else 1):
        s.submit(sequence())
    batch = scheduled(s)
    if others == "waiting":
        while batch.rows[-1].sequence is not list(s.running)[-1]:  # all eight prompts are on their way
            answer(s, batch)
            batch = scheduled(s)
        s.submit(sequence())
    elif others == "prefilling":
        s.submit(sequence())
        assert [row.prefill for row in scheduled(s).rows] == [True]
        return
    else:
        s.submit(sequence())
        scheduled(s)
    following = s.schedule()
    assert following is None or not any(row.follows for row in following.rows)


@pytest.mark.parametrize(("ahead", "gap"), [(False, 0.5), (True, 0.009)])
def test_only_where_it_pays(ahead: bool, gap: float) -> None:
    s = scheduler(ahead=ahead, gap=gap)
    s.submit(sequence())
    scheduled(s)
    assert s.schedule() is None


@pytest.mark.parametrize(("max_tokens", "goes"), [(1, False), (2, True)])
def test_never_past_the_last_token(max_tokens: int, goes: bool) -> None:
    s = scheduler()
    s.submit(sequence(max_tokens))
    scheduled(s)
    assert (s.schedule() is not None) == goes


@pytest.mark.parametrize("reason", [Finish.EOS, Finish.STOP])
def test_an_answer_that_ends_leaves_the_step_ahead_unused(reason: Finish) -> None:
    s, one = scheduler(), sequence(session="s")
    s.submit(one)
    first, ahead = scheduled(s), scheduled(s)
    answer(s, first, EOS if reason is Finish.EOS else 7)
    if reason is Finish.STOP:
        s.finish(one, reason)
    s.drop(one)
    told = list(one.tokens)
    assert answer(s, ahead, 8) == {}
    assert one.tokens == told
    again = Sequence([*told, 5, 6], SamplingParams(0.0, 0, 1.0, 0), 4, frozenset({EOS}), "s")
    s.submit(again)
    row = scheduled(s).rows[0]
    assert (row.position, row.token_ids) == (len(told), [5, 6])  # goes back over what the step ahead fed


def test_steps_teach_how_long_nobody_computes() -> None:
    cost = StepCost(2)
    for _ in range(500):
        cost.learn(1, [30, 50], 100)
    assert cost.gap == pytest.approx(0.2, abs=1e-3)
    for _ in range(500):
        cost.learn(1, [30, 50], 70)  # clocks: never less than what was computed
    assert cost.gap == pytest.approx(0.0, abs=1e-3)


def test_guesses_that_are_worth_more_go_first_and_get_another_chance() -> None:
    drafts = Drafts()
    assert [drafts.stands_back(0.1) for _ in range(34)] == ([True] * 16 + [False]) * 2
    for _ in range(30):
        drafts.gained(1)
    assert not drafts.stands_back(0.1)
    for _ in range(60):
        drafts.gained(0)
    assert drafts.stands_back(0.1)
