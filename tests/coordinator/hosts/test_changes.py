from __future__ import annotations

import base64
import dataclasses
import hashlib
from typing import Any

from trireme_coordinator.hosts.changes import command_line, differences, file_change, process_change, start_step
from trireme_coordinator.hosts.desired import Process

PROCESS = Process(
    "ray", ("ray", "start", "--memory=1"), {"A": "1", "URL": "redis://secret", "N": "2"},
    secret=frozenset({"URL"}), loose=frozenset({"N"}), after={"ray on a": "x"}, versions=("0.1.0", "2.60.0"),
    ready="started", seconds=9, grace=3,
)  # fmt: skip


def facts(process: Process | None = None, alive: bool = True, **files: str) -> dict[str, Any]:
    found = {} if process is None else {process.name: {"alive": alive, "spec": process.spec(), "left": 1}}
    return {"files": files, "processes": found}


def changed(**fields: Any) -> Process:
    return dataclasses.replace(PROCESS, **fields)


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert process_change(facts(PROCESS), PROCESS).steps == []
    assert (
        process_change(facts(PROCESS), changed(env=PROCESS.env | {"N": "3"})).steps == []
    )  # matters at its start only


def test_what_is_not_there_is_started() -> None:
    change = process_change(facts(), PROCESS)
    assert [next(iter(step)) for step in change.steps] == ["start"]
    assert (change.notes, change.restarts) == (["starts ray"], False)


def test_what_has_ended_is_cleared_away_and_started_again() -> None:
    change = process_change(facts(PROCESS, alive=False), PROCESS)
    assert [next(iter(step)) for step in change.steps] == ["stop", "start"]
    assert (change.notes, change.restarts) == (["starts ray again, which had ended"], False)


def test_each_difference_is_a_reason() -> None:
    for other, reason in (
        (changed(argv=("ray", "start", "--memory=2")), "--memory=1 becomes --memory=2"),
        (changed(argv=("ray", "start")), "--memory=1 becomes nothing"),
        (changed(env={**PROCESS.env, "A": "2"}), "environment: A"),
        (changed(env={**PROCESS.env, "URL": "redis://other"}), "environment: URL"),
        (changed(after={"ray on a": "y"}), "ray on a was started anew"),
        (changed(versions=("0.2.0", "2.60.0")), "version 0.1.0 2.60.0 becomes 0.2.0 2.60.0"),
    ):
        change = process_change(facts(PROCESS), other)
        assert change.notes == [f"starts ray anew: {reason}"]
        assert change.restarts
        assert [next(iter(step)) for step in change.steps] == ["stop", "start"]


def test_the_order_of_arguments_counts() -> None:
    other = changed(argv=("ray", "--memory=1", "start"))
    assert differences(PROCESS.spec(), other.spec()) == ["nothing becomes nothing"]


def test_secrets_are_neither_kept_nor_shown() -> None:
    step = start_step(PROCESS)
    assert "redis://secret" not in repr(step["spec"])
    assert "redis://secret" not in command_line(step)
    assert command_line(step) == "A=... N=... URL=... ray start --memory=1"


def test_only_files_that_differ_are_written() -> None:
    same = hashlib.sha256(b"same").hexdigest()
    change = file_change(facts(None, a=same, b="other", c=""), {"a": b"same", "b": b"new", "c": b"first"})
    assert [(step["write"], base64.b64decode(step["data"])) for step in change.steps] == [
        ("b", b"new"),
        ("c", b"first"),
    ]
    assert change.notes == ["updates b", "writes c"]
    assert "new" not in "".join(map(command_line, change.steps))
