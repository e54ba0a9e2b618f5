"""One answer on its way: tokens come in from the engine, and go to the reader's outbox and to the session.

The engine's side never waits. A reader may be replaced by another in the middle of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from trireme_coordinator.scheduler import Finish
from trireme_coordinator.service.outbox import Outbox
from trireme_coordinator.store import End, RequestRecord, SessionWriter
from trireme_coordinator.telemetry import Layers, Lookup, RequestTrace, StepReport
from trireme_proto.errors import StreamTakenOver, TriremeError


class Generation:
    """Listens to the engine for one request. The answer goes to one reader at a time, the last one attached."""

    def __init__(
        self,
        outbox: Outbox,
        trace: RequestTrace,
        log: SessionLog,
        layers: Layers,
        recalled: Sequence[int] = (),
        looking: Callable[[], Lookup | None] = lambda: None,
    ) -> None:
        """`recalled`: tokens of the answer that the session and the outbox have already. `looking`: how the keys and
        values of its beginning were found, where that is new.
        """
        self._outbox, self._trace, self._log, self._layers = outbox, trace, log, layers
        self._tokens, self._looking = list(recalled), looking
        self._reason: Finish | None = None
        self._error: TriremeError | None = None
        self._started = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._reason is not None or self._error is not None

    @property
    def token_ids(self) -> Sequence[int]:
        """The answer so far."""
        return self._tokens

    def attach(self, outbox: Outbox, trace: RequestTrace) -> None:
        """From now on the answer goes there, with what the outbox lacks of it; who read it before gets
        StreamTakenOver.
        """
        self._outbox.failed(StreamTakenOver("The same request was sent again; its answer goes to the newer call."))
        self._outbox, self._trace, self._started = outbox, trace, False
        outbox.tokens(self._tokens[outbox.seen :])
        if self._reason is not None:
            outbox.finished(self._reason)
        elif self._error is not None:
            outbox.failed(self._error)
        else:
            trace.admitted(self._layers)

    # ---------------------------------------------------------------- called by the engine

    def admitted(self) -> None:
        """The first micro-batch with this request is on its way."""
        self._trace.admitted(self._layers, self._looking())

    def timed(self, *, prefill: bool, tokens: int, step: StepReport) -> None:
        """A step with `tokens` tokens of this request has passed all stages."""
        if prefill and (lookup := self._looking()) is not None:
            self._trace.looked_up(step, lookup)
        self._trace.step("prefill" if prefill else "decode", step, tokens)

    def token(self, token_id: int) -> Finish | None:
        """A token of the answer; STOP where a stop text came up with it."""
        if not self._started:
            self._started = True
            self._trace.first_token()
        self._tokens.append(token_id)
        self._log.add(token_id)
        return Finish.STOP if self._outbox.token(token_id) else None

    def finished(self, reason: Finish) -> None:
        """The answer is complete. What is left of its text may still hold a stop text."""
        self._trace.complete()
        self._reason = self._outbox.finished(reason)
        self._log.finish(self._reason, len(self._tokens))

    def failed(self, error: TriremeError) -> None:
        """The answer ends here, with an error."""
        self._error = error
        self._outbox.failed(error)


class SessionLog:
    """Hands each token of an answer to the session's writer, in order, once the request is recorded; and, at the end,
    what became of the request.
    """

    def __init__(self, writer: SessionWriter, session_id: str, position: int) -> None:
        """`position`: where the next token goes."""
        self._writer, self._session_id, self._position = writer, session_id, position
        self._early: list[int] = []
        self._prompt: Sequence[int] = ()
        self._end: tuple[Finish, int] | None = None
        self._opened: tuple[int, RequestRecord] | None = None
        self._closed = False
        self.cached: Callable[[], int] = lambda: 0
        """Tells how many tokens of the prompt were not computed again."""
        self.on_close: Callable[[], None] = lambda: None
        """Told, once, that nobody generates here any more."""

    def open(self, fence: int, record: RequestRecord, prompt: Sequence[int] = ()) -> None:
        """The request is recorded: what came in meanwhile is stored, and what will come in. `prompt`: it is to be
        recorded with the first token, which goes behind these.
        """
        self._opened, self._prompt = (fence, record), prompt
        self._position -= len(prompt)
        early, self._early = self._early, []
        self._put(early)
        if self._end is not None:
            self.finish(*self._end)

    def add(self, token_id: int) -> None:
        """Notes a token of the answer."""
        if self._opened is None:
            self._early.append(token_id)
        else:
            self._put([token_id])

    def finish(self, reason: Finish, length: int) -> None:
        """The answer is complete, with so many tokens."""
        if self._opened is None:
            self._end = reason, length
            return
        _, record = self._opened
        self._close(End(replace(record, state=reason.value, answer_tokens=length, cached_tokens=self.cached())))

    def release(self) -> None:
        """Nobody generates here any more. Nothing happens after `finish` or `abandon`."""
        self._writer.end(self._session_id)
        if self._prompt:
            self.abandon()  # the store never heard of it
        elif self._opened is not None:
            self._close(End())

    def abandon(self) -> None:
        """Nothing more is stored."""
        self._closed = True
        self.on_close()

    def _close(self, end: End) -> None:
        if not self._closed:
            self._put([], end)
            self.abandon()

    def _put(self, token_ids: Sequence[int], end: End | None = None) -> None:
        if self._opened is None or self._closed or not (token_ids or end):
            return
        taken, self._prompt = [*self._prompt, *token_ids], ()
        self._writer.put(self._session_id, self._position, taken, self._opened[0], end)
        self._position += len(taken)
