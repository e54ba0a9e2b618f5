"""The trace of one request while it runs: what the service and the engine tell of it, and when.

    started -> tokenized -> queued -> admitted -> first_token -> complete -> finish
       |           |           |          | step ...   | step ...              fail, wherever it is
       +--------- admit -------+- queue --+- prefill --+- decode --+- deliver -+

The caller says what happens; the times are taken here. Nobody tells it a prompt, an answer or a token, so that none
gets into a span; of an error it keeps the reason and not the message. `assembly.py` makes the spans of it, at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from grpc import StatusCode as GrpcStatus

from trireme_coordinator.metrics.requests import NO_TIMES, RequestTimes
from trireme_coordinator.telemetry import names
from trireme_coordinator.telemetry.context import TraceContext
from trireme_coordinator.telemetry.recoveries import Books, NoBooks
from trireme_coordinator.telemetry.step_log import StepLog
from trireme_coordinator.telemetry.steps import StepReport
from trireme_coordinator.telemetry.tree import Value
from trireme_proto.errors import Cancelled, Internal, TriremeError
from trireme_proto.limits import LIMITS

Clock = Callable[[], int]
"""Nanoseconds since 1970, as time.time_ns."""
Layers = Sequence[tuple[int, int]]
"""(first, end) layer of each stage, in pipeline order."""

_OUR_FAULT = frozenset({GrpcStatus.UNKNOWN, GrpcStatus.INTERNAL, GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED})
"""Statuses that make a server's span an error, by OpenTelemetry's conventions for gRPC; the others are the caller's."""
_MOST_CHUNKS = 256
_INT64 = (1 << 63) - 1


class Sampling(Protocol):
    """How tokens are chosen."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a request, when it was given its place, found the keys and values of its beginning."""

    since_ns: int
    """How long ago that was, nanoseconds."""
    cached_tokens: int
    """That stages still held."""
    asked: bool = False
    """Whether the page store was asked, too."""
    found: int = 0
    """Pages that it had."""
    pages: int = 0
    """Pages that were restored from it."""
    size: int = 0
    """Bytes of these, all stages together."""
    seconds: float = 0.0
    """From the question to the end of the restoring."""
    restoring_s: float = 0.0
    """Of these, reading the pages."""


class RequestTrace:
    """Told what happens to a request, once each, in order; a step that is left out leaves out its span."""

    times: RequestTimes = NO_TIMES
    """The same for the metrics, which count whether or not the trace is recorded."""

    def __init__(
        self,
        context: TraceContext,
        clock: Clock,
        ended: Callable[[RequestTrace], None] | None,
        *,
        model: str,
        request_id: str,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        every_step: bool = False,
        recoveries: Books | None = None,
    ) -> None:
        """`ended` is called once, when it has; None: nobody wants to know, and nothing is recorded."""
        self.context, self._clock, self._ended = context, clock, ended
        self.request_id, self.every_step = request_id, every_step
        self.recoveries: Books = recoveries or NoBooks()
        self.trace_id = context.hex
        """W3C trace id, 32 lower-case hexadecimal digits."""
        self.attributes = _attributes(model, request_id, sampling, max_tokens)
        self.started = self.ended_ns = clock()
        self.at: dict[str, int] = {names.ADMIT: self.started}
        """When each phase began."""
        self.tokenized_ns = 0
        self.layers: Layers = ()
        self.prefill: StepLog | None = None
        self.decode: StepLog | None = None
        self.recomputed: list[StepLog] = []
        """What was prefilled again in the middle of the answer, each time."""
        self.lookups: list[tuple[int, Lookup]] = []
        """When they ended, and what they found."""
        self.outcome = ""
        self.error = ""
        """The reason, where it ended with an error that is not the caller's fault."""
        self._over = ended is None
        self._again = False  # it is being computed again

    def tokenized(self) -> None:
        """The prompt's tokens are known."""
        if not self._over:
            self.tokenized_ns = self._clock()

    def queued(self) -> None:
        """The request waits for its first micro-batch."""
        self.times.queued()
        self._begin(names.QUEUE, after=names.ADMIT)

    def admitted(self, layers: Layers = (), lookup: Lookup | None = None) -> None:
        """Its first micro-batch is on its way, over stages with these layers. Later calls count for nothing."""
        self.times.admitted()
        if self._begin(names.PREFILL, after=names.QUEUE):
            self.layers = layers
            self.prefill = StepLog(self.at[names.PREFILL], every=True, most=_MOST_CHUNKS)
            if lookup is not None:
                self.lookups.append((self.at[names.PREFILL], lookup))

    def looked_up(self, step: StepReport, lookup: Lookup) -> None:
        """It was given a place again; the first step on it has come back, and is to be told by `step` next."""
        if not self._over:
            self.lookups.append((self._clock() - step.round_ns, lookup))

    def step(self, phase: str, step: StepReport, tokens: int) -> None:
        """A micro-batch with `tokens` tokens of the request has passed all stages. `phase`: "prefill" or "decode"."""
        if self._over:
            return
        now = self._clock()
        if self.decode is None:
            if self.prefill is not None:
                self.prefill.add(step, tokens, now)
        elif phase == names.PREFILL:
            if not self._again:
                self._again = True
                self.recomputed.append(StepLog(now - step.round_ns, every=True, most=_MOST_CHUNKS))
            self.recomputed[-1].add(step, tokens, now)
        else:
            if self._again:
                self._again = False
                self.recomputed[-1].fold()
                self.decode.resume(self.recomputed[-1].last_ns)
            self.decode.add(step, tokens, now)

    def first_token(self) -> None:
        """The first token of the answer is there. Later calls count for nothing."""
        self.times.first_token()
        if self.prefill is not None and self._begin(names.DECODE, after=names.PREFILL):
            self.prefill.fold()
            self.decode = StepLog(self.prefill.last_ns, every=self.every_step, most=LIMITS.trace_spans)
            self.attributes[names.TTFT] = (self.at[names.DECODE] - self.started) / 1e9

    def complete(self) -> None:
        """The last token is there; what follows is delivering and storing."""
        if not self._begin(names.DELIVER, after=names.DECODE):
            self._begin(names.DELIVER, after=names.PREFILL)

    def guessed(self, drafted: int, accepted: int) -> None:
        """So many tokens of the answer were guessed, and so many of the guesses were right; before `finish`."""
        if drafted and not self._over:
            self.attributes |= {names.DRAFTED_TOKENS: drafted, names.ACCEPTED_TOKENS: accepted}

    def finish(self, reason: str, *, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> None:
        """The answer is complete; `reason` is one of the few finish reasons. Nothing happens after `fail`."""
        self.times.finished(reason, completion_tokens)
        if self._over:
            return
        self.outcome = reason
        self.attributes |= {
            names.FINISH_REASONS: (reason,),
            names.INPUT_TOKENS: prompt_tokens,
            names.OUTPUT_TOKENS: completion_tokens,
            names.CACHED_TOKENS: cached_tokens,
        }
        self._end()

    def fail(self, error: BaseException) -> None:
        """The request ended with an error; nothing happens after `finish`. Cancellation is one of the errors."""
        known = _known(error)
        self.times.failed(known.code.name, known.reason)
        if self._over:
            return
        kind = type(error).__name__ if known is Internal and not isinstance(error, TriremeError) else known.reason
        self.attributes |= {names.ERROR_TYPE: kind, names.GRPC_STATUS: known.code.value[0]}
        self.outcome = kind
        self.error = known.reason if known.code in _OUR_FAULT else ""
        self._end()

    def _begin(self, name: str, *, after: str) -> bool:
        """Whether the phase begins now: the one before it is under way."""
        if self._over or next(reversed(self.at)) != after:
            return False
        self.at[name] = self._clock()
        return True

    def _end(self) -> None:
        self._over = True
        self.ended_ns = self._clock()
        if self._ended is not None:
            self._ended(self)


def _known(error: BaseException) -> type[TriremeError]:
    if isinstance(error, TriremeError):
        return type(error)
    return Cancelled if isinstance(error, asyncio.CancelledError) else Internal


def _attributes(model: str, request_id: str, sampling: Sampling | None, max_tokens: int | None) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        names.OPERATION: "text_completion",
        names.PROVIDER: "trireme",
        names.MODEL: model,
        names.RESPONSE_MODEL: model,
        names.RESPONSE_ID: request_id,
    }
    if max_tokens is not None:
        attributes[names.MAX_TOKENS] = max_tokens
    if sampling is not None:
        attributes[names.TEMPERATURE] = sampling.temperature
        attributes[names.TOP_K] = sampling.top_k
        attributes[names.TOP_P] = sampling.top_p
        # A seed has 64 bits without a sign, a number in OTLP 63 and a sign: beyond that it goes as text.
        attributes[names.SEED] = sampling.seed if sampling.seed <= _INT64 else str(sampling.seed)
    return attributes
