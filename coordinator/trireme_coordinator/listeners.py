"""Who is told what becomes of a sequence, and what a trouble of one of them comes to: the end of that one sequence.

Owns which sequences somebody listens to; every listener is told of its sequence's end, unless the sequence is dropped.
Lives on the event loop. Knows nothing of stages or of the pipeline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from trireme_coordinator.scheduler import Batch, Finish, Row, Scheduler, Sequence
from trireme_coordinator.telemetry import StepReport
from trireme_proto.errors import Internal, PipelineUnavailable, TriremeError
from trireme_worker.logs import about

log = logging.getLogger(__name__)

_MOST_SETBACKS = 5
"""Times that a sequence starts over without one token in between, before it is given up."""
_GIVEN_UP = "a request is given up: the pipeline was lost %d times while it ran"
FAULT = "Something went wrong in the server; its log says what."


class Listener(Protocol):
    """Told, on the event loop, what happens to its sequence; `finished` or `failed` comes last. Must be quick."""

    def admitted(self) -> None: ...
    def timed(self, *, prefill: bool, tokens: int, step: StepReport) -> None: ...
    def token(self, token_id: int) -> Finish | None:
        """A token of the answer. Returns STOP to end it here."""

    def finished(self, reason: Finish) -> None: ...
    def failed(self, error: TriremeError) -> None:
        """The answer ends here, with an error. Must not raise."""


class Listeners:
    """The listeners of all sequences that wait or run."""

    def __init__(self, scheduler: Scheduler, freed: Callable[[], None]) -> None:
        """`freed`: called when a sequence was dropped, so that the stages can be told."""
        self._scheduler, self._freed = scheduler, freed
        self._listeners: dict[Sequence, Listener] = {}
        self._queued: set[Sequence] = set()

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, sequence: Sequence, listener: Listener) -> None:
        """The sequence has been submitted."""
        self._listeners[sequence] = listener
        self._queued.add(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Ends work on a sequence without a word to its listener; nothing happens where it has ended already."""
        if self._listeners.pop(sequence, None) is not None:
            self._queued.discard(sequence)
            self._scheduler.drop(sequence)
            self._freed()

    def tell_admitted(self, batch: Batch) -> None:
        """Those whose first rows these are."""
        for row in batch.rows:
            if row.sequence in self._queued:
                self._queued.remove(row.sequence)
                with self._telling(row.sequence) as listener:
                    if listener is not None:
                        listener.admitted()

    def tell_step(self, row: Row, tokens: list[int], step: StepReport) -> None:
        """A row has been computed, and these tokens of the answer came of it."""
        with self._telling(row.sequence) as listener:
            if listener is not None:
                listener.timed(prefill=row.prefill, tokens=row.count, step=step)
                self._tell_tokens(row.sequence, listener, tokens)

    def give_up_hopeless(self) -> None:
        """A sequence on which the pipeline breaks again and again must not keep it from everybody else."""
        for sequence in [s for s in self._listeners if s.setbacks >= _MOST_SETBACKS]:
            log.error(_GIVEN_UP, sequence.setbacks, extra=about(sequence.trace_id))
            self._fail(sequence, PipelineUnavailable("The stages were lost again and again while this request ran."))

    def fail_all(self, error: TriremeError) -> None:
        """Every sequence ends with this error, at the token where it is."""
        for sequence in list(self._listeners):
            self._fail(sequence, error)

    def _tell_tokens(self, sequence: Sequence, listener: Listener, tokens: list[int]) -> None:
        for n, token_id in enumerate(tokens, 1):
            if (reason := listener.token(token_id)) is not None:
                self._scheduler.finish(sequence, reason, unread=len(tokens) - n)
                break
        if sequence.finish is not None:
            self.drop(sequence)
            listener.finished(sequence.finish)

    @contextmanager
    def _telling(self, sequence: Sequence) -> Iterator[Listener | None]:
        """The sequence's listener, unless it was dropped. What goes wrong in it ends this one sequence."""
        listener = self._listeners.get(sequence)
        try:
            yield listener
        except Exception as error:  # one request's trouble must not become everybody's
            if not isinstance(error, TriremeError):
                log.exception("a request failed in a way that it should not have", extra=about(sequence.trace_id))
            self.drop(sequence)
            if listener is not None:
                listener.failed(error if isinstance(error, TriremeError) else Internal(FAULT))

    def _fail(self, sequence: Sequence, error: TriremeError) -> None:
        listener = self._listeners[sequence]
        self.drop(sequence)
        listener.failed(error)
