"""One answer as its messages arrive: checked, collected, timed. Shared by the asynchronous and the blocking stream.

Pure bookkeeping: it gets messages and a clock, and knows nothing of gRPC, threads or event loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from trireme import _replies
from trireme.results import FinishReason, Generation, TokenChunk, Usage
from trireme_proto.errors import Internal, RequestSuperseded
from trireme_proto.v1 import inference_pb2 as inference


class Answer:
    """Collects the messages of one `Generate` call."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._called = clock()
        self._token_ids: list[int] = []
        self._texts: list[str] = []
        self._first: tuple[float, int] | None = None  # arrival of the first tokens, and how many they were
        self._last = self._called
        self._resumed, self._at_head = False, True
        self._repeat: Repeat | None = None
        self.head: inference.GenerateResponse | None = None
        """The first message: it carries the ids and the seed."""
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None

    @property
    def count(self) -> int:
        """Tokens so far."""
        return len(self._token_ids)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens so far."""
        return tuple(self._token_ids)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def attempt(self, *, anew: bool = False) -> None:
        """What comes next is from a new call: its first message tells which answer it goes on with. `anew`: the answer
        comes from its beginning.
        """
        self._resumed = self.head is not None
        self._at_head = True
        self._repeat = Repeat(self.token_ids, self.text) if anew else None

    def take(self, message: inference.GenerateResponse) -> TokenChunk | None:
        """Checks and keeps a message; None where there is nothing in it to deliver. Raises Internal."""
        if self.head is None:
            self.head = message
        if self._at_head:
            self._at_head = False
            self._check_head(message)
        if self._repeat is not None:
            message = self._repeat.rest(message)
        if self._resumed and self._has(message):
            return None
        if message.index != len(self._token_ids):
            raise Internal(f"The answer jumps to token {message.index} where token {len(self._token_ids)} was due.")
        if message.token_ids:
            self._time(len(message.token_ids))
        self._token_ids += message.token_ids
        self._texts.append(message.text)
        if message.HasField("finish_reason"):
            self.finish_reason = _replies.finish_reason(message.finish_reason)
            self.usage = _replies.usage(message.usage)
        if not message.token_ids and not message.text:
            return None
        return TokenChunk(message.index, tuple(message.token_ids), message.text)

    def check_complete(self) -> None:
        """To be called where the stream ends. Raises Internal where the last message is missing."""
        if self.finish_reason is None:
            raise Internal("The answer ended without a finish reason.")

    def generation(self) -> Generation:
        """The whole answer. Raises Internal where it is not complete."""
        if self.head is None or self.finish_reason is None or self.usage is None:
            raise Internal("The answer ended without a finish reason.")
        return Generation(
            token_ids=self.token_ids,
            text=self.text,
            finish_reason=self.finish_reason,
            usage=self.usage,
            session_id=self.head.session_id,
            request_id=self.head.request_id,
            trace_id=self.head.trace_id,
            seed=self.head.seed,
            ttft_s=None if self._first is None else self._first[0] - self._called,
            tokens_per_s=self._rate(),
        )

    def _check_head(self, message: inference.GenerateResponse) -> None:
        """A call that resumes must have found the same request."""
        if self.head is None or not self._resumed:
            return
        names = ("request_id", "seed") if self._repeat is not None else ("session_id", "request_id", "seed")
        for name in names:
            if getattr(message, name) != getattr(self.head, name):
                raise Internal(f"The server went on with another answer: its {name} differs.")
        if self._repeat is not None:
            self.head = message  # the session may be another one

    def _has(self, message: inference.GenerateResponse) -> bool:
        """Whether these tokens were all delivered before the loss. Raises Internal where they were others."""
        ids, end = list(message.token_ids), message.index + len(message.token_ids)
        if not ids:
            return message.index < len(self._token_ids) and not message.HasField("finish_reason")
        if end > len(self._token_ids):
            return False
        if ids != self._token_ids[message.index : end]:
            raise Internal(f"The server went on with another answer: token {message.index} differs.")
        return True

    def _time(self, count: int) -> None:
        self._last = self._clock()
        if self._first is None:
            self._first = (self._last, count)

    def _rate(self) -> float | None:
        if self._first is None:
            return None
        since, count = self._first
        later = len(self._token_ids) - count
        if not later:
            since, later = self._called, count
        return later / max(self._last - since, 1e-9)


class Repeat:
    """An answer that comes again from its beginning: takes away what was delivered before, which must be the same."""

    def __init__(self, token_ids: Sequence[int], text: str) -> None:
        self._token_ids, self._text = token_ids, text
        self._count, self._texts = 0, ""

    def rest(self, message: inference.GenerateResponse) -> inference.GenerateResponse:
        """What is new in a message; no token and no text where nothing is. Raises RequestSuperseded."""
        known, ids = self._token_ids[self._count :][: len(message.token_ids)], message.token_ids
        before, self._texts = len(self._texts), self._texts + message.text
        differs = (message.index, tuple(ids[: len(known)])) != (self._count, tuple(known))
        self._count += len(ids)
        ended = message.HasField("finish_reason") and self._count < len(self._token_ids)
        if differs or ended or not _agree(self._texts, self._text):
            raise RequestSuperseded("The server no longer knew this request, and its answer is another one by now.")
        new = inference.GenerateResponse()
        new.CopyFrom(message)
        new.index += len(known)
        del new.token_ids[: len(known)]
        new.text = self._texts[max(before, len(self._text)) :]
        return new


def _agree(a: str, b: str) -> bool:
    return a.startswith(b) or b.startswith(a)


class AnswerView:
    """What both kinds of stream tell about the answer so far."""

    _answer: Answer

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens delivered so far; they stay where the stream ends with an error."""
        return self._answer.token_ids

    @property
    def text(self) -> str:
        """The text delivered so far; it stays where the stream ends with an error."""
        return self._answer.text

    @property
    def session_id(self) -> str | None:
        """The session that holds this conversation; None before the first message."""
        return self._answer.head.session_id if self._answer.head else None

    @property
    def request_id(self) -> str | None:
        """The request's name in logs and traces; None before the first message."""
        return self._answer.head.request_id if self._answer.head else None

    @property
    def trace_id(self) -> str | None:
        """W3C trace id, 32 hexadecimal digits; None before the first message."""
        return self._answer.head.trace_id if self._answer.head else None

    @property
    def seed(self) -> int | None:
        """The seed in use, given or drawn by the server; None before the first message."""
        return self._answer.head.seed if self._answer.head else None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not."""
        return self._answer.finish_reason

    @property
    def usage(self) -> Usage | None:
        """Token counts; None while the answer has not ended."""
        return self._answer.usage
