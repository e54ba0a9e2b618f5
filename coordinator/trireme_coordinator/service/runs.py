"""A request while it is generated here, apart from the call that reads its answer: another call may take that over.

When the last reader leaves, generation ends, and what the session got stays: the request can be resumed behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trireme_coordinator.engine import Engine
from trireme_coordinator.scheduler import Sequence
from trireme_coordinator.service.generation import Generation, SessionLog
from trireme_coordinator.service.outbox import Outbox
from trireme_coordinator.store import RequestRecord
from trireme_proto.errors import LeaseLost
from trireme_proto.v1 import inference_pb2 as pb


@dataclass(eq=False, slots=True)
class Reader:
    """A call that is given an answer, from the token `index` on."""

    session_id: str
    record: RequestRecord
    index: int
    outbox: Outbox
    usage: Callable[[], pb.Usage]
    """What the answer cost; once it is complete."""
    leave: Callable[[Reader], None] = lambda _: None
    """To be called when the call ends, however it does."""
    sequence: Sequence | None = None
    """What the engine computes for it."""


@dataclass(eq=False, slots=True)
class Run:
    """A request that is generated."""

    session_id: str
    record: RequestRecord
    sequence: Sequence
    generation: Generation
    log: SessionLog
    engine: Engine
    release: Callable[[str], None]
    """Lets others onto the session."""
    reader: Reader | None = None

    def read_by(self, outbox: Outbox, index: int) -> Reader:
        """The reader from now on."""
        self.reader = Reader(self.session_id, self.record, index, outbox, self._usage, self._left, self.sequence)
        return self.reader

    def lost(self) -> None:
        """Somebody else generates on the session: this ends here."""
        self.log.abandon()
        self.engine.drop(self.sequence)
        if not self.generation.ended:
            self.generation.failed(
                LeaseLost("Another coordinator has taken over the session; resume the request there.")
            )

    def end(self) -> None:
        """Frees all that is held; what the session got stays."""
        self.engine.drop(self.sequence)
        self.log.release()
        self.release(self.session_id)

    def cached(self) -> int:
        """Tokens of the prompt that were not computed again."""
        return min(self.sequence.cached, self.record.answer_start)

    def _left(self, reader: Reader) -> None:
        if self.reader is reader:
            self.end()

    def _usage(self) -> pb.Usage:
        return usage(self.record, len(self.generation.token_ids), self.cached())


def usage(record: RequestRecord, completion: int, cached: int) -> pb.Usage:
    """What a complete answer cost."""
    return pb.Usage(prompt_tokens=record.answer_start, completion_tokens=completion, cached_tokens=cached)
