"""One answer on its way: tokens come in from the engine, messages go out to the caller.

The engine's side never waits: it detokenises, looks for stop texts, notes the token for the session and puts it into
the outbox. The caller's side takes all that the outbox holds at once, so that a slow reader gets fewer, larger
messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.store import SessionWriter
from trireme_coordinator.telemetry import Layers, RequestTrace
from trireme_coordinator.text import StopMatcher, TextStream
from trireme_proto.errors import TriremeError
from trireme_proto.v1 import inference_pb2 as pb
from trireme_proto.v1 import stage_pb2


@dataclass
class Piece:
    """What the caller has not been given yet."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""


class Generation:
    """Listens to the engine for one request."""

    def __init__(
        self, text: TextStream, stops: StopMatcher, trace: RequestTrace, log: SessionLog, layers: Layers
    ) -> None:
        self._text, self._stops, self._trace, self._log = text, stops, trace, log
        self._layers = layers
        self._piece = Piece()
        self._reason: Finish | None = None
        self._error: TriremeError | None = None
        self._news = asyncio.Event()
        self._started = False

    # ---------------------------------------------------------------- called by the engine

    def admitted(self) -> None:
        """The first micro-batch with this request is on its way."""
        self._trace.admitted(self._layers)

    def timed(self, *, prefill: bool, tokens: int, timings: Sequence[stage_pb2.StageTiming]) -> None:
        """A step with `tokens` tokens of this request has passed all stages."""
        self._trace.step("prefill" if prefill else "decode", timings, tokens)

    def token(self, token_id: int) -> Finish | None:
        """A token of the answer; STOP where a stop text came up with it."""
        if not self._started:
            self._started = True
            self._trace.first_token()
        self._log.add(token_id)
        emit, matched = self._stops.push(self._text.push(token_id))
        self._piece.token_ids.append(token_id)
        self._piece.text += emit
        self._news.set()
        return Finish.STOP if matched else None

    def finished(self, reason: Finish) -> None:
        """The answer is complete. What is left of its text may still hold a stop text."""
        self._log.start()
        if reason is not Finish.STOP:
            emit, matched = self._stops.push(self._text.finish())
            self._piece.text += emit + self._stops.flush()
            reason = Finish.STOP if matched else reason
        self._reason = reason
        self._news.set()

    def failed(self, error: TriremeError) -> None:
        """The answer ends here, with an error."""
        self._error = error
        self._news.set()

    # ---------------------------------------------------------------- called by the request's handler

    async def pieces(self) -> AsyncIterator[tuple[Piece, Finish | None]]:
        """What came in since the last time; the last one has a reason. Raises the error of an answer that failed."""
        while True:
            await self._news.wait()
            self._news.clear()
            # All taken before the yield: while the caller writes, the engine goes on.
            piece, self._piece = self._piece, Piece()
            reason, error = self._reason, self._error
            if error is None or piece.token_ids:
                yield piece, reason
            if error is not None:
                raise error
            if reason is not None:
                return


class SessionLog:
    """Hands the prompt and each token of the answer to the session's writer, in order; the prompt not before the first
    token, so that a request that never got anywhere leaves the session as it was.
    """

    def __init__(self, writer: SessionWriter, session_id: str, position: int, prompt: Sequence[int]) -> None:
        self._writer, self._session_id, self._position = writer, session_id, position
        self._prompt: Sequence[int] | None = prompt

    def start(self) -> None:
        """Notes the prompt, once."""
        if self._prompt is not None:
            prompt, self._prompt = self._prompt, None
            self._put(prompt)

    def add(self, token_id: int) -> None:
        """Notes a token of the answer."""
        self.start()
        self._put([token_id])

    def _put(self, token_ids: Sequence[int]) -> None:
        self._writer.put(self._session_id, self._position, token_ids)
        self._position += len(token_ids)


def message(index: int, piece: Piece, reason: Finish | None, usage: pb.Usage | None) -> pb.GenerateResponse:
    """The message that carries a piece."""
    finish = None if reason is None else pb.FinishReason.Value(f"FINISH_REASON_{reason.name}")
    return pb.GenerateResponse(
        index=index, token_ids=piece.token_ids, text=piece.text, finish_reason=finish, usage=usage
    )
