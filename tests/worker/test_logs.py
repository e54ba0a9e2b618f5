"""Log lines: JSON that parses, trace ids where they belong, and no content."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from trireme_proto.errors import PipelineUnavailable
from trireme_worker.logs import TRACE_ID, about, setup_logs

CANARY = "xylophonequark"
log = logging.getLogger("trireme_worker.something")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    token = TRACE_ID.set("")
    yield io.StringIO()
    TRACE_ID.reset(token)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object(stream: io.StringIO) -> None:
    setup_logs("json", "info", stream)
    log.info("%d layers\n%s", 7, '"quoted"', extra={"fields": {"layers": 7}})
    (line,) = lines(stream)
    assert line.pop("time") is not None
    assert line == {
        "level": "info",
        "logger": "trireme_worker.something",
        "message": '7 layers\n"quoted"',
        "fields": {"layers": 7},
    }


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_a_request_has_its_trace_id(stream: io.StringIO, form: str) -> None:
    setup_logs(form, "info", stream)
    log.info("none")
    log.info("elsewhere", extra=about("b" * 32))
    TRACE_ID.set("a" * 32)
    log.info("here")
    none, elsewhere, here = stream.getvalue().splitlines()
    assert "trace" not in none
    assert "b" * 32 in elsewhere
    assert "a" * 32 in here
    if form == "json":
        assert [line.get("trace_id") for line in lines(stream)] == [None, "b" * 32, "a" * 32]


def failing(error: Exception) -> None:
    try:
        {}[CANARY]
    except KeyError as cause:
        raise error from cause


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_unforeseen_error_is_told_without_its_words(
    stream: io.StringIO, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_logs(form, stream=stream)
    try:
        failing(ValueError(f"no such token: {CANARY}"))
    except ValueError:
        log.exception("a request failed")
    assert CANARY not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert "KeyError" in stream.getvalue()
    assert "test_logs.py:" in stream.getvalue()
    monkeypatch.setenv("TRIREME_DEBUG", "1")
    try:
        failing(ValueError(f"no such token: {CANARY}"))
    except ValueError:
        log.exception("a request failed")
    assert CANARY in stream.getvalue()


def test_our_own_errors_are_told_with_their_sentence(stream: io.StringIO) -> None:
    setup_logs("json", stream=stream)
    try:
        failing(PipelineUnavailable("A worker is not there yet."))
    except PipelineUnavailable:
        log.exception("no pipeline")
    (line,) = lines(stream)
    assert line["exception"][-1] == "PipelineUnavailable: A worker is not there yet."


def test_levels(stream: io.StringIO) -> None:
    setup_logs("json", "warning", stream)
    log.info("not this")
    logging.getLogger("trireme").info("what a command says")
    logging.getLogger("somebody.else").info("not this")
    assert [line["message"] for line in lines(stream)] == ["what a command says"]


@pytest.mark.parametrize("ours_first", [True, False])
def test_handlers_beside_ours_have_formats_of_their_own(stream: io.StringIO, *, ours_first: bool) -> None:
    setup_logs("console", stream=stream)
    beside = io.StringIO()
    root, other = logging.getLogger(), logging.StreamHandler(beside)
    root.handlers[:] = [*root.handlers, other] if ours_first else [other, *root.handlers]
    try:
        failing(ValueError(CANARY))
    except ValueError:
        log.exception("it failed")
    assert CANARY in beside.getvalue()
    assert CANARY not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
