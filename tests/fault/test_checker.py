"""The checker itself: an undisturbed history is clean, and each planted fault gives exactly its violation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.fault.checker import Rules, check
from tests.fault.history import (
    Books,
    CallBegan,
    CallEnded,
    Cancelled,
    Event,
    FaultBegan,
    FaultEnded,
    History,
    Left,
    Pace,
    Probe,
    Tokens,
    around,
    line_of,
    read,
)
from tests.fault.judge import Judge

ANSWERS = {"a": (5, 6, 7, 8), "b": (9, 9)}
RULES = Rules(
    excused={"redis-kill": frozenset({"SESSION_STORE_UNAVAILABLE"})},
    excused_together=(
        frozenset({"redis-kill"}),
        frozenset({"coordinator-kill"}),
        frozenset({"SESSION_INCOMPLETE"}),
    ),
    slack={"fds": 3},
)
CLEAN: list[Event] = [
    Books(0.0, "before", {"coordinator.fds": 40, "load.running": 0}),
    CallBegan(1.0, 1, 0, "a", 5.0),
    CallBegan(1.1, 2, 1, "b", 5.0),
    Tokens(1.5, 1, 0, (5,)),
    FaultBegan(1.6, 1, "worker-kill", "stage on node-1"),
    FaultEnded(1.6, 1),
    Tokens(2.0, 1, 1, (6, 7)),
    Tokens(2.1, 2, 0, (9, 9)),
    Probe(2.2, "node-1", epoch=2, offered=1, accepted=False),
    Tokens(2.5, 1, 3, (8,)),
    CallEnded(2.6, 1, "OK"),
    CallEnded(2.7, 2, "OK"),
    Books(9.0, "after", {"coordinator.fds": 43, "load.running": 0}),
]


def broken(history: Sequence[Event]) -> list[str]:
    return [violation.invariant for violation in check(history, ANSWERS, RULES)]


def with_(*changes: tuple[int, Event | None]) -> list[Event]:
    """The clean history with events at some places changed, or (None) left out."""
    table = dict(changes)
    return [new for i, old in enumerate(CLEAN) if (new := table.get(i, old)) is not None]


def test_an_undisturbed_history_is_clean() -> None:
    assert broken(CLEAN) == []


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (["redis-kill", "coordinator-kill"], []),
        (["coordinator-kill", "redis-kill"], []),
        (["redis-kill"], ["failed call"]),
        (["coordinator-kill"], ["failed call"]),
    ],
)
def test_some_reasons_want_two_faults(kinds: list[str], found: list[str]) -> None:
    faults: list[Event] = []
    for number, kind in enumerate(kinds, 2):
        faults += [FaultBegan(1.7, number, kind, "it"), FaultEnded(1.8, number)]
    history = with_((11, CallEnded(2.7, 2, "SESSION_INCOMPLETE")))
    assert broken([*history[:6], *faults, *history[6:]]) == found


def test_two_faults_far_apart_excuse_nothing() -> None:
    faults: list[Event] = [FaultBegan(100.0, 2, "redis-kill", "it"), FaultEnded(100.5, 2)]
    faults += [FaultBegan(2.0, 3, "coordinator-kill", "it"), FaultEnded(2.0, 3)]
    history = with_((11, CallEnded(2.7, 2, "SESSION_INCOMPLETE")))
    assert "failed call" in broken([*history[:-1], *faults, history[-1]])


@pytest.mark.parametrize(
    ("changes", "invariant"),
    [
        pytest.param([(6, Tokens(2.0, 1, 2, (7,)))], "gap", id="gap"),
        pytest.param([(6, None)], "gap", id="a message is missing"),
        pytest.param([(9, Tokens(2.5, 1, 2, (7, 8)))], "duplicate", id="duplicate"),
        pytest.param([(6, Tokens(2.0, 1, 1, (6, 8)))], "wrong token", id="wrong token"),
        pytest.param([(7, Tokens(2.1, 2, 0, (9, 9, 1)))], "wrong token", id="more tokens than asked for"),
        pytest.param([(9, None)], "incomplete", id="incomplete"),
        pytest.param([(11, CallEnded(7.2, 2, "OK"))], "late", id="late"),
        pytest.param([(11, None)], "late", id="never ended"),
        pytest.param([(11, CallEnded(2.7, 2, "UNTYPED", "KeyError()"))], "untyped error", id="untyped"),
        pytest.param([(11, CallEnded(2.7, 2, "UNAVAILABLE"))], "failed call", id="a failure without a reason"),
        pytest.param([(11, CallEnded(2.7, 2, "CANCELLED"))], "failed call", id="cancelled by nobody"),
        pytest.param([(11, CallEnded(2.7, 2, "DEADLINE_EXCEEDED"))], "failed call", id="before the deadline"),
        pytest.param([(8, Probe(2.2, "node-1", 2, 1, accepted=True))], "old epoch", id="old epoch"),
        pytest.param([(12, Books(9.0, "after", {"coordinator.fds": 44, "load.running": 0}))], "leak", id="fds"),
        pytest.param([(12, Books(9.0, "after", {"coordinator.fds": 40, "load.running": 1}))], "leak", id="slot"),
        pytest.param([(12, Books(9.0, "after", {"store.session_keys": 1}))], "leak", id="a key that is new"),
    ],
)
def test_a_planted_fault_is_found_once(changes: list[tuple[int, Event | None]], invariant: str) -> None:
    assert broken(with_(*changes)) == [invariant]


def test_a_failure_that_a_fault_excuses() -> None:
    failed = (11, CallEnded(2.7, 2, "SESSION_STORE_UNAVAILABLE"))
    assert broken(with_(failed, (4, FaultBegan(1.6, 1, "redis-kill", "valkey")))) == []
    long_before = [(4, FaultBegan(-20.0, 1, "redis-kill", "valkey")), (5, FaultEnded(-15.0, 1))]
    assert broken(with_(failed, *long_before)) == ["failed call"]


def test_what_the_suite_itself_missed_is_not_late() -> None:
    late = [*with_((11, None), (12, None)), CallEnded(7.2, 2, "OK")]
    assert broken([*late, Left(6.5, 1.0), Left(7.0, 1.0)]) == ["late"]
    assert broken([*late, Left(5.9, 1.0), Left(7.1, 1.0)]) == []


def test_what_a_caller_ends_itself_may_be_a_part() -> None:
    cancelled = with_((9, Cancelled(2.1, 1)), (10, CallEnded(2.6, 1, "CANCELLED")))
    assert broken(cancelled) == []
    assert broken(with_((1, CallBegan(1.0, 1, 0, "a", 1.55)), (10, CallEnded(2.6, 1, "DEADLINE_EXCEEDED")))) == []


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    times = iter((100.0, 101.5))
    with History(tmp_path / "h.jsonl", clock=lambda: next(times)) as history:
        assert history.now() == 1.5
        for event in (*CLEAN, Cancelled(3.0, 1), Left(4.0, 7.5), Pace(4.0, 700.0)):
            history.add(event)
        assert read(tmp_path / "h.jsonl") == history.events  # before it is closed
    (tmp_path / "other").write_text(line_of(CLEAN[0]).replace("Books", "Looks"))
    with pytest.raises(KeyError):
        read(tmp_path / "other")


def test_a_judge_counts_what_is_wrong_while_it_happens(tmp_path: Path) -> None:
    with History(tmp_path / "h.jsonl") as history:
        judge = Judge(history, ANSWERS, RULES)
        for event in with_((6, Tokens(2.0, 1, 2, (7,))), (11, CallEnded(2.7, 2, "UNAVAILABLE"))):
            history.add(event)
            judge.catch_up()
        assert (judge.calls, judge.failed, judge.tokens, judge.violations) == (2, 1, 5, 2)


def test_the_part_that_shows_a_violation() -> None:
    shown = around(CLEAN, 2.0, 0.65, call=1)
    assert [type(e).__name__ for e in shown] == [
        "Tokens", "FaultBegan", "FaultEnded", "Tokens", "Probe", "Tokens", "CallEnded",
    ]  # fmt: skip
    assert all(getattr(event, "call", 1) == 1 for event in shown)
