"""An answer between the engine, which never waits, and a caller who may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.service.generation import Generation, Piece, SessionLog, message
from trireme_coordinator.text import StopMatcher, TextStream
from trireme_proto.errors import Internal
from trireme_proto.v1 import inference_pb2 as pb


class Recorded:
    """Stands for a trace and for a session writer: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def put(self, session_id: str, position: int, token_ids: Sequence[int]) -> None:
        self.told.append((session_id, position, *token_ids))

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.told.append((name, *args))


def decode(ids: list[int]) -> str:
    """Each token is the byte of its id; bytes that are no UTF-8 become replacement characters."""
    return bytes(ids).decode(errors="replace")


class Made:
    def __init__(self, *stops: str, prompt: Sequence[int] = (9, 8)) -> None:
        self.trace, self.writer = Recorded(), Recorded()
        log: Any = SessionLog(self.writer, "s", 5, prompt)  # type: ignore[arg-type]
        text = TextStream(decode, frozenset())
        self.generation = Generation(text, StopMatcher(stops), self.trace, log, ((0, 6),))  # type: ignore[arg-type]

    def say(self, text: str) -> list[Finish | None]:
        return [self.generation.token(byte) for byte in text.encode()]

    async def heard(self) -> tuple[list[tuple[list[int], str]], Finish | None]:
        """All pieces from now on, and the reason."""
        pieces, reason = [], None
        async for piece, why in self.generation.pieces():
            pieces.append((piece.token_ids, piece.text))
            reason = why
        return pieces, reason


async def test_a_slow_reader_gets_fewer_and_larger_pieces() -> None:
    made = Made()
    pieces = made.generation.pieces()
    made.say("a")
    assert (await anext(pieces)) == (Piece([97], "a"), None)
    made.say("bcd")
    made.generation.finished(Finish.LENGTH)
    assert (await anext(pieces)) == (Piece([98, 99, 100], "bcd"), Finish.LENGTH)
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


async def test_an_end_that_comes_while_the_caller_writes() -> None:
    """The piece before it was already taken: its end must not be lost with it."""
    made = Made()
    made.say("a")
    heard = []
    async for piece, reason in made.generation.pieces():
        heard.append((piece.text, reason))
        if len(heard) == 1:
            made.say("b")
            made.generation.finished(Finish.LENGTH)
    assert heard == [("a", None), ("b", Finish.LENGTH)]


async def test_a_failure_that_comes_while_the_caller_writes() -> None:
    made = Made()
    made.say("a")
    pieces = made.generation.pieces()
    assert (await anext(pieces))[0].text == "a"
    made.say("b")
    made.generation.failed(Internal("for the test"))
    assert (await anext(pieces))[0].text == "b"
    with pytest.raises(Internal):
        await anext(pieces)


async def test_a_reader_waits_for_news() -> None:
    made = Made()
    hearing = asyncio.ensure_future(made.heard())
    await asyncio.sleep(0)
    made.say("ab")
    await asyncio.sleep(0)
    made.generation.finished(Finish.EOS)
    assert await hearing == ([([97, 98], "ab"), ([], "")], Finish.EOS)


async def test_an_answer_without_a_token() -> None:
    made = Made()
    made.generation.finished(Finish.EOS)
    assert await made.heard() == ([([], "")], Finish.EOS)
    assert made.writer.told == [("s", 5, 9, 8)]  # what was said to the model is part of the session


async def test_text_ends_before_a_stop_text() -> None:
    made = Made("END")
    assert made.say("no END") == [None, None, None, None, None, Finish.STOP]
    made.generation.finished(Finish.STOP)
    assert await made.heard() == ([([110, 111, 32, 69, 78, 68], "no ")], Finish.STOP)


async def test_what_was_held_back_for_a_stop_text_comes_at_the_end() -> None:
    made = Made("END")
    assert made.say("the EN") == [None] * 6
    made.generation.finished(Finish.LENGTH)
    assert await made.heard() == ([(list(b"the EN"), "the EN")], Finish.LENGTH)


async def test_a_character_that_never_became_whole_can_be_the_stop_text() -> None:
    """The last token begins a character: its text, a replacement character, comes only at the end."""
    made = Made("x\N{REPLACEMENT CHARACTER}")
    assert [made.generation.token(i) for i in (ord("a"), ord("x"), 0xC3)] == [None, None, None]
    made.generation.finished(Finish.LENGTH)
    assert await made.heard() == ([([97, 120, 0xC3], "a")], Finish.STOP)


async def test_a_failed_answer_gives_what_is_there_and_raises() -> None:
    made = Made()
    made.say("ab")
    made.generation.failed(Internal("for the test"))
    pieces = made.generation.pieces()
    assert (await anext(pieces)) == (Piece([97, 98], "ab"), None)
    with pytest.raises(Internal, match="for the test"):
        await anext(pieces)


async def test_an_answer_that_failed_at_once() -> None:
    made = Made()
    made.generation.failed(Internal("for the test"))
    with pytest.raises(Internal, match="for the test"):
        await anext(made.generation.pieces())
    assert made.writer.told == []  # the session is as it was


async def test_the_session_gets_prompt_and_tokens_in_order() -> None:
    made = Made()
    made.say("ab")
    assert made.writer.told == [("s", 5, 9, 8), ("s", 7, 97), ("s", 8, 98)]


async def test_the_trace_hears_of_each_phase() -> None:
    made = Made()
    made.generation.admitted()
    made.generation.timed(prefill=True, tokens=2, timings=())
    made.say("a")
    made.generation.timed(prefill=False, tokens=1, timings=())
    made.say("b")
    assert made.trace.told == [
        ("admitted", ((0, 6),)),
        ("step", "prefill", (), 2),
        ("first_token",),
        ("step", "decode", (), 1),
    ]


def test_messages() -> None:
    first = message(3, Piece([5, 6], "ab"), None, None)
    assert (first.index, list(first.token_ids), first.text) == (3, [5, 6], "ab")
    assert not first.HasField("finish_reason")
    assert not first.HasField("usage")
    for reason in Finish:
        last = message(0, Piece(), reason, pb.Usage(prompt_tokens=1))
        assert pb.FinishReason.Name(last.finish_reason) == f"FINISH_REASON_{reason.name}"
        assert last.usage.prompt_tokens == 1
