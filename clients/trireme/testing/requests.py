"""What the fake server remembers of a request: the same one, sent again, has the same answer; and who reads it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from trireme_proto.errors import InvalidRequest, RequestConflict, RequestSuperseded, StreamTakenOver
from trireme_proto.v1 import inference_pb2 as inference

Answer = list[inference.GenerateResponse]


class Claim(Protocol):
    """The right to add to the session."""

    def give_back(self, tokens: tuple[int, ...] = (), position: int | None = None) -> None: ...


@dataclass(slots=True, eq=False)
class Reader:
    """A call that is given an answer. `over` is set when it ends, or when another call takes the answer over."""

    over: threading.Event
    taken: bool = False

    def check(self) -> None:
        """Raises StreamTakenOver."""
        if self.taken:
            raise StreamTakenOver("The same request was sent again; its answer goes to the newer call.")


@dataclass(slots=True, eq=False)
class Remembered:
    """A request of a session."""

    content: bytes
    seed: int
    position: int
    """Where its prompt begins in the session."""
    prompt: list[int]
    answer: Answer
    """All messages after the first, one a token, and the last one."""
    claim: Claim
    reader: Reader | None = None
    delivered: int = 0
    """Tokens of the answer that somebody was given."""
    complete: bool = False
    cut: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, request: inference.GenerateRequest) -> None:
        """Raises RequestConflict, RequestSuperseded, InvalidRequest where the call cannot have this answer."""
        seeded = request.sampling.HasField("seed")
        if content(request) != self.content or (seeded and request.sampling.seed != self.seed):
            raise RequestConflict("The session has a request of this request_id already, with other content.")
        if self.cut:
            raise RequestSuperseded("The session has gone on since this request was interrupted; send a new one.")
        if request.resume_index > (length := len(self.answer) - 1):
            raise InvalidRequest(f"resume_index is {request.resume_index}; the answer has {length} tokens.")

    def take_over(self, reader: Reader) -> bool:
        """Gives the answer to another reader; whether somebody was reading it."""
        with self.lock:
            older, self.reader = self.reader, reader
        if older is not None:
            older.taken = True
            older.over.set()
        return older is not None

    def read(self, reader: Reader, index: int) -> Iterator[inference.GenerateResponse]:
        """The messages from a token on. The session has the whole answer before the last one is given."""
        for message in self.answer[index:-1]:
            reader.check()
            self.delivered = max(self.delivered, message.index + 1)
            yield message
        reader.check()
        self.complete = True
        self._give_back()
        yield self.answer[-1]

    def left(self, reader: Reader) -> None:
        """The reader is gone; what was delivered stays in the session."""
        with self.lock:
            if self.reader is not reader:
                return
            self.reader = None
        self._give_back()

    def _give_back(self) -> None:
        said = [token for message in self.answer for token in message.token_ids]
        kept = said if self.complete else said[: self.delivered]
        self.claim.give_back((*self.prompt, *kept) if self.complete or kept else (), self.position)


def content(request: inference.GenerateRequest) -> bytes:
    """What is asked for, apart from ids and seed."""
    bare = inference.GenerateRequest()
    bare.CopyFrom(request)
    for name in ("session_id", "request_id", "resume_index", "trace_steps", "session_tokens"):
        bare.ClearField(name)
    bare.sampling.ClearField("seed")
    if not bare.sampling.ByteSize():
        bare.ClearField("sampling")
    return bare.SerializeToString(deterministic=True)
