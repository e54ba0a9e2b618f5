"""The audit log: one line a call, bounded, and it follows rotation."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trireme_coordinator.auth.audit import AuditLog, Event
from trireme_proto.errors import ConfigurationError

EVENT = Event("trireme.v1.Inference/Generate", "acme", "key:1", "ipv4:127.0.0.1:1", "OK", "", 0.5, 7, "ab" * 16)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_a_call(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(str(file), clock=lambda: NOW)
    log.add(EVENT)
    log.add(EVENT)
    log.close()
    assert lines(file)[0]["subject"] == "key:1"
    assert lines(file)[1]["time"] == "2026-01-01T00:00:00.000000+00:00"
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_appends_and_follows_a_file_that_was_moved(tmp_path: Path) -> None:
    file, moved = tmp_path / "audit.jsonl", tmp_path / "audit.1"
    first = AuditLog(str(file))
    first.add(EVENT)
    first.close()
    second = AuditLog(str(file))
    second.add(EVENT)
    second.close()
    assert len(lines(file)) == 2
    third = AuditLog(str(file))
    file.rename(moved)
    third.add(EVENT)
    third.close()
    assert (len(lines(moved)), len(lines(file))) == (2, 1)


def test_what_does_not_fit_the_queue_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit.jsonl"
    log, open_ = AuditLog(str(file), lines=10), threading.Event()
    go = log._write
    monkeypatch.setattr(log, "_write", lambda line: open_.wait() and go(line))
    for _ in range(101):
        log.add(EVENT)
    open_.set()
    log.close()
    written = lines(file)
    lost = sum(int(str(line.get("lost_lines", 0))) for line in written)
    assert lost >= 90
    assert lost + sum("method" in line for line in written) == 101


def test_line_breaks_stay_inside_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(str(file))
    log.add(Event("m", "t", 'sub:"\n{}', "p", "OK", "", 0.0, 0, ""))
    log.close()
    assert len(lines(file)) == 1


def test_a_place_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        AuditLog(str(tmp_path / "none" / "audit.jsonl"))
