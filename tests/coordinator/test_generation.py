"""An answer between the engine, which never waits, and a caller who may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.service.generation import Generation, SessionLog
from trireme_coordinator.service.outbox import Outbox, Piece, message
from trireme_coordinator.store import End, RequestRecord
from trireme_coordinator.telemetry import StepReport
from trireme_coordinator.text import StopMatcher, TextStream
from trireme_proto.errors import Internal, InvalidRequest, StreamTakenOver
from trireme_proto.v1 import inference_pb2 as pb


class Recorded:
    """Stands for a trace and for a session writer: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def put(
        self, session_id: str, position: int, token_ids: Sequence[int], fence: int | None, end: End | None = None
    ) -> None:
        self.told.append((session_id, position, list(token_ids), fence, end))

    def end(self, session_id: str) -> None:
        """Not of interest here."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.told.append((name, *args))


def decode(ids: list[int]) -> str:
    """Each token is the byte of its id; bytes that are no UTF-8 become replacement characters."""
    return bytes(ids).decode(errors="replace")


STEP = StepReport(())
RECORD = RequestRecord("r", "a" * 64, 5, 7, 77)


def outbox(*stops: str, index: int = 0) -> Outbox:
    return Outbox(TextStream(decode, frozenset()), StopMatcher(stops), index)


async def all_of(box: Outbox) -> tuple[list[tuple[list[int], str]], Finish | None]:
    """All pieces from now on, and the reason."""
    pieces, reason = [], None
    async for piece, why in box.pieces():
        pieces.append((piece.token_ids, piece.text))
        reason = why
    return pieces, reason


class Made:
    def __init__(self, *stops: str, index: int = 0, opened: bool = True) -> None:
        self.trace, self.writer = Recorded(), Recorded()
        self.log = SessionLog(self.writer, "s", 7)  # type: ignore[arg-type]
        self.log.cached, self.closed = lambda: 3, list[str]()
        self.log.on_close = lambda: self.closed.append("closed")
        self.outbox = outbox(*stops, index=index)
        self.generation = Generation(self.outbox, self.trace, self.log, ((0, 6),))  # type: ignore[arg-type]
        if opened:
            self.log.open(4, RECORD)

    def say(self, text: str) -> list[Finish | None]:
        return [self.generation.token(byte) for byte in text.encode()]

    async def heard(self) -> tuple[list[tuple[list[int], str]], Finish | None]:
        """All pieces from now on, and the reason."""
        return await all_of(self.outbox)


def ended(state: str, tokens: int) -> End:
    return End(RequestRecord("r", "a" * 64, 5, 7, 77, state, tokens, 3))


async def test_a_slow_reader_gets_fewer_and_larger_pieces() -> None:
    made = Made()
    pieces = made.outbox.pieces()
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
    async for piece, reason in made.outbox.pieces():
        heard.append((piece.text, reason))
        if len(heard) == 1:
            made.say("b")
            made.generation.finished(Finish.LENGTH)
    assert heard == [("a", None), ("b", Finish.LENGTH)]


async def test_a_failure_that_comes_while_the_caller_writes() -> None:
    made = Made()
    made.say("a")
    pieces = made.outbox.pieces()
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
    assert made.writer.told[-1] == ("s", 7, [], 4, ended("eos", 0))


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
    pieces = made.outbox.pieces()
    assert (await anext(pieces)) == (Piece([97, 98], "ab"), None)
    with pytest.raises(Internal, match="for the test"):
        await anext(pieces)


async def test_an_answer_that_failed_at_once() -> None:
    made = Made()
    made.generation.failed(Internal("for the test"))
    with pytest.raises(Internal, match="for the test"):
        await anext(made.outbox.pieces())
    made.log.release()
    assert made.writer.told[-1] == ("s", 7, [], 4, End())  # others may have the session


async def test_the_session_gets_tokens_in_order_and_then_the_end() -> None:
    made = Made()
    made.say("ab")
    made.generation.finished(Finish.LENGTH)
    made.log.release()  # when the reader leaves
    told = [told for told in made.writer.told if told[2] or told[4]]
    assert told == [("s", 7, [97], 4, None), ("s", 8, [98], 4, None), ("s", 9, [], 4, ended("length", 2))]
    assert made.closed == ["closed"]


async def test_nothing_is_stored_before_the_request_is() -> None:
    made = Made(opened=False)
    made.say("ab")
    made.generation.finished(Finish.LENGTH)
    assert made.writer.told == []
    made.log.open(4, RECORD)
    assert made.writer.told == [("s", 7, [97, 98], 4, None), ("s", 9, [], 4, ended("length", 2))]


async def test_nothing_is_stored_once_the_session_is_lost() -> None:
    made = Made()
    made.log.abandon()
    made.say("ab")
    made.generation.finished(Finish.LENGTH)
    made.log.release()
    assert [told for told in made.writer.told if told[2] or told[4]] == []


@pytest.mark.parametrize("index", range(8))
async def test_a_reader_who_has_a_part_is_given_the_rest(index: int) -> None:
    """A character of three bytes, and a text that may begin a stop text, lie across some of the cuts."""
    whole, rest = Made("END"), Made("END", index=index)
    for made in (whole, rest):
        made.say("a\N{EURO SIGN}EN!")
        made.generation.finished(Finish.LENGTH)
    (all_pieces, _), (pieces, reason) = await whole.heard(), await rest.heard()
    given = Made("END")
    for byte in "a\N{EURO SIGN}EN!".encode()[:index]:
        given.generation.token(byte)
    before = given.outbox._piece.text
    assert before + "".join(text for _, text in pieces) == "".join(text for _, text in all_pieces)
    assert [i for ids, _ in pieces for i in ids] == [i for ids, _ in all_pieces for i in ids][index:]
    assert reason is Finish.LENGTH


async def test_a_reader_who_claims_to_have_more_than_there_is() -> None:
    made = Made(index=3)
    made.say("ab")
    made.generation.finished(Finish.LENGTH)
    with pytest.raises(InvalidRequest, match="resume_index is 3; the answer has 2 tokens"):
        await made.heard()


@pytest.mark.parametrize("late", [False, True])
async def test_a_newer_reader_takes_over(late: bool) -> None:
    made, newer, trace = Made("END"), outbox("END", index=2), Recorded()
    made.say("abE")
    if late:
        made.generation.finished(Finish.LENGTH)
    newer.token(ord("a"))  # it was fed some before
    made.generation.attach(newer, trace)  # type: ignore[arg-type]
    older = made.outbox.pieces()
    assert (await anext(older)) == (Piece([97, 98, 69], "abE" if late else "ab"), None)
    with pytest.raises(StreamTakenOver):
        await anext(older)
    if not late:
        made.say("x")
        made.generation.finished(Finish.LENGTH)
        assert trace.told[0] == ("admitted", ((0, 6),))
    assert await all_of(newer) == ([(list(b"E" if late else b"Ex"), "E" if late else "Ex")], Finish.LENGTH)
    assert made.generation.ended


async def test_the_trace_hears_of_each_phase() -> None:
    made = Made()
    made.generation.admitted()
    made.generation.timed(prefill=True, tokens=2, step=STEP)
    made.say("a")
    made.generation.timed(prefill=False, tokens=1, step=STEP)
    made.say("b")
    assert made.trace.told == [
        ("admitted", ((0, 6),), None),
        ("step", "prefill", STEP, 2),
        ("first_token",),
        ("step", "decode", STEP, 1),
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
