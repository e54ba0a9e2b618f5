"""Stop texts, against a naive search over the whole text, for every way to cut it into pieces."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trireme_coordinator.text import StopMatcher
from trireme_proto.errors import InvalidRequest
from trireme_proto.limits import LIMITS

letters = st.text("ab\N{EURO SIGN}", max_size=12)
stop_texts = st.lists(st.text("ab\N{EURO SIGN}", min_size=1, max_size=4), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Grows the text character by character; the first end at which a stop text is complete counts, the longest one."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    delivered, matched = "", False
    for piece in pieces:
        emit, matched = matcher.push(piece)
        delivered += emit
        if matched:
            break
    return (delivered if matched else delivered + matcher.flush()), matched


@given(st.lists(letters, max_size=6), stop_texts)
@example(["abb", "b"], ["abbb", "bb"])
@example(["abbb"], ["abbb", "bb"])
@example(["ab"], ["ab", "b"])
def test_finds_what_a_naive_search_finds(pieces, stops):
    assert run(pieces, stops) == naive("".join(pieces), stops)


@given(st.lists(letters, max_size=6), stop_texts)
def test_never_delivers_what_may_begin_a_stop_text_and_holds_back_no_more(pieces, stops):
    matcher, seen, delivered = StopMatcher(stops), "", ""
    for piece in pieces:
        emit, matched = matcher.push(piece)
        seen, delivered = seen + piece, delivered + emit
        if matched:
            return
        held = seen[len(delivered) :]
        assert seen == delivered + held
        assert held == "" or any(stop.startswith(held) for stop in stops)
        for start in range(len(delivered)):
            assert not any(stop.startswith(seen[start:]) for stop in stops)


def test_nothing_is_delivered_after_a_match():
    matcher = StopMatcher(["END"])
    assert matcher.push("one EN") == ("one ", False)
    assert matcher.push("D two") == ("", True)
    assert matcher.push("three") == ("", True)
    assert matcher.flush() == ""


def test_what_only_looked_like_a_stop_text_is_delivered():
    matcher = StopMatcher(["END"])
    assert matcher.push("EN") == ("", False)
    assert matcher.push("TEREN") == ("ENTER", False)
    assert matcher.push("END") == ("EN", True)
    last = StopMatcher(["END"])
    assert last.push("the EN") == ("the ", False)
    assert last.flush() == "EN"
    assert last.flush() == ""


def test_without_stop_texts_everything_passes_through():
    matcher = StopMatcher()
    assert matcher.push("anything") == ("anything", False)
    assert matcher.flush() == ""


@pytest.mark.parametrize(
    "stops",
    [[""], ["a" * (LIMITS.stop_bytes + 1)], ["\N{EURO SIGN}" * 86], ["a"] * (LIMITS.stop_texts + 1)],
    ids=["empty", "too long", "too many bytes", "too many"],
)
def test_stop_texts_beyond_the_limits_are_refused(stops):
    with pytest.raises(InvalidRequest, match="stop"):
        StopMatcher(stops)


def test_stop_texts_at_the_limits_are_taken():
    stop = "a" * LIMITS.stop_bytes
    assert StopMatcher([stop] * LIMITS.stop_texts).push("x" + stop) == ("x", True)
