"""Shares of work on threads: all of it, once, and errors are not lost."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_worker.team import Team, split


@given(items=st.integers(0, 5000), parts=st.integers(1, 70))
def test_shares_cover_everything_once_and_evenly(items: int, parts: int) -> None:
    shares = split(items, parts)
    assert [i for begin, end in shares for i in range(begin, end)] == list(range(items))
    assert len(shares) == max(1, min(items, parts))
    sizes = [end - begin for begin, end in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 2, 100])
def test_each_item_is_computed_once(threads: int, items: int) -> None:
    team, done = Team(threads), []
    team.run(items, lambda begin, end: done.extend(range(begin, end)))
    team.close()
    assert sorted(done) == list(range(items))


def test_shares_run_side_by_side_and_the_caller_works_too() -> None:
    team, meeting, names = Team(3), threading.Barrier(3), set[str]()

    def work(_begin: int, _end: int) -> None:
        meeting.wait(timeout=60)  # passes only when three are here at once
        names.add(threading.current_thread().name)

    team.run(3, work)
    team.close()
    assert len(names) == 3
    assert threading.current_thread().name in names


@pytest.mark.parametrize("wrong", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
def test_an_error_is_raised_when_all_shares_have_ended(wrong: set[int]) -> None:
    team, others_may_end, ended = Team(3), threading.Event(), set[int]()

    def work(begin: int, _end: int) -> None:
        if begin in wrong:
            others_may_end.set()
            raise ArithmeticError(begin)
        others_may_end.wait(timeout=60)
        ended.add(begin)

    with pytest.raises(ArithmeticError) as raised:
        team.run(3, work)
    assert raised.value.args == (min(wrong),)  # that of the first share
    assert ended == {0, 1, 2} - wrong  # nobody still writes to the caller's arrays
    done: list[int] = []
    team.run(9, lambda begin, end: done.extend(range(begin, end)))  # and it goes on working
    team.close()
    assert sorted(done) == list(range(9))


def test_closing_ends_the_threads() -> None:
    before = set(threading.enumerate())
    team = Team(3)
    meeting = threading.Barrier(3)
    team.run(3, lambda _begin, _end: meeting.wait(timeout=60) and None)
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == 2
    team.close()
    assert not any(helper.is_alive() for helper in helpers)


def test_a_team_of_none() -> None:
    with pytest.raises(ValueError, match="at least one thread"):
        Team(0)
