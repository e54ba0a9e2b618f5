"""What one caller is given of an answer: from which token on, in text and tokens, and how it ends.

Tokens come in from the beginning of the answer, those included that the caller has already: the text that a token
completes depends on those before it. The caller takes all that there is at once, so that a slow reader gets fewer,
larger messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.text import StopMatcher, TextStream
from trireme_proto.errors import InvalidRequest, TriremeError
from trireme_proto.v1 import inference_pb2 as pb


@dataclass
class Piece:
    """What the caller has not been given yet."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""


class Outbox:
    """Decodes an answer for one reader, who has its first `index` tokens, and the text that came with them."""

    def __init__(self, text: TextStream, stops: StopMatcher, index: int = 0) -> None:
        self._text, self._stops, self._index = text, stops, index
        self.seen = 0
        """Tokens that came in."""
        self._piece = Piece()
        self._reason: Finish | None = None
        self._error: TriremeError | None = None
        self._news = asyncio.Event()

    def token(self, token_id: int) -> bool:
        """The answer's next token; whether a stop text came up with it."""
        emit, matched = self._stops.push(self._text.push(token_id))
        self.seen += 1
        if self.seen > self._index:
            self._piece.token_ids.append(token_id)
            self._piece.text += emit
            self._news.set()
        return matched

    def tokens(self, token_ids: Sequence[int]) -> bool:
        """Several of them. Takes a while for many; may run on another thread as long as nobody else uses the outbox."""
        matched = False
        for token_id in token_ids:
            matched = self.token(token_id)
        return matched

    def finished(self, reason: Finish) -> Finish:
        """The answer is complete; returns why, as what is left of its text may still hold a stop text."""
        emit, matched = self._stops.push(self._text.finish())
        self._piece.text += emit + self._stops.flush()
        self._reason = Finish.STOP if matched else reason
        if self.seen < self._index and self._error is None:
            self.failed(beyond(self._index, self.seen))
        self._news.set()
        return self._reason

    def failed(self, error: TriremeError) -> None:
        """Nothing more comes for this reader. What is there already is still given, but not that it is complete."""
        self._error = error
        self._news.set()

    async def pieces(self) -> AsyncIterator[tuple[Piece, Finish | None]]:
        """What came in since the last time; the last one has a reason. Raises the error of an answer that failed."""
        while True:
            await self._news.wait()
            self._news.clear()
            # All taken before the yield: while the caller writes, the engine goes on.
            piece, self._piece = self._piece, Piece()
            reason, error = self._reason, self._error
            if error is None or piece.token_ids:
                yield piece, None if error is not None else reason
            if error is not None:
                raise error
            if reason is not None:
                return


def beyond(index: int, length: int) -> InvalidRequest:
    """The one sentence for an index that the answer does not reach."""
    return InvalidRequest(f"resume_index is {index}; the answer has {length} tokens.")


def message(index: int, piece: Piece, reason: Finish | None, usage: pb.Usage | None) -> pb.GenerateResponse:
    """The message that carries a piece."""
    finish = None if reason is None else pb.FinishReason.Value(f"FINISH_REASON_{reason.name}")
    return pb.GenerateResponse(
        index=index, token_ids=piece.token_ids, text=piece.text, finish_reason=finish, usage=usage
    )
