"""The trace of one request: when it was tokenized, queued, prefilled and decoded, and what each stage did meanwhile.

    generate
    |-- tokenize     request -> tokenized     (the session's tokens are read meanwhile)
    |-- queue        queued -> admitted
    |-- prefill      admitted -> first_token
    |   `-- stage 0, stage 1, ...
    `-- decode       first_token -> finish
        `-- stage 0, stage 1, ...

The caller says what happens; the times are taken here. Nobody tells it a prompt, an answer or a token, so that none
gets into a span; of an error it keeps the reason and not the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from grpc import StatusCode as GrpcStatus
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.util.types import AttributeValue

from trireme_coordinator.metrics.requests import NO_TIMES, RequestTimes
from trireme_coordinator.telemetry import names
from trireme_coordinator.telemetry.stages import StageTotal, StageTotals, Timing
from trireme_proto.errors import Cancelled, Internal, TriremeError

Clock = Callable[[], int]
"""Nanoseconds since 1970, as time.time_ns."""
Layers = Sequence[tuple[int, int]]
"""(first, end) layer of each stage, in pipeline order."""

_OUR_FAULT = frozenset({GrpcStatus.UNKNOWN, GrpcStatus.INTERNAL, GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED})
"""Statuses that make a server's span an error, by OpenTelemetry's conventions for gRPC; the others are the caller's."""
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


class RequestTrace:
    """Told what happens to a request, once each, in order; a step that is left out leaves out its span."""

    times: RequestTimes = NO_TIMES
    """The same for the metrics, which count whether or not the trace is recorded."""

    def __init__(
        self,
        tracer: Tracer,
        clock: Clock,
        parent: Context,
        *,
        model: str,
        request_id: str,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._tracer, self._clock, self._started = tracer, clock, clock()
        attributes = _request_attributes(model, request_id, sampling, max_tokens)
        self._request = tracer.start_span(names.REQUEST, parent, SpanKind.SERVER, attributes, start_time=self._started)
        self._ended = False
        self._child: Span | None = None
        self._child_name = ""
        self._child_started = 0
        self._totals = StageTotals()
        self._recomputed = 0
        self._layers: Layers = ()
        context = self._request.get_span_context()
        self.trace_id = format_trace_id(
            context.trace_id if context.is_valid else RandomIdGenerator().generate_trace_id()
        )
        """W3C trace id, 32 lower-case hexadecimal digits."""
        self._begin(names.TOKENIZE)

    def tokenized(self) -> None:
        """The prompt's tokens are known."""
        self._end_child(self._clock())

    def queued(self) -> None:
        """The request waits for its first micro-batch."""
        self.times.queued()
        self._begin(names.QUEUE)

    def admitted(self, layers: Layers = ()) -> None:
        """Its first micro-batch is on its way, over stages with these layers. Later calls count for nothing."""
        self.times.admitted()
        if self._child_name == names.QUEUE:
            self._layers = layers
            self._begin(names.PREFILL)

    def step(self, phase: str, timings: Sequence[Timing], tokens: int) -> None:
        """A micro-batch with `tokens` tokens of the request has passed all stages. `phase`: "prefill" or "decode"."""
        if not self._request.is_recording() or self._child_name not in {names.PREFILL, names.DECODE}:
            return
        self._totals.add(timings, tokens, self._clock())
        if phase == names.PREFILL and self._child_name == names.DECODE:
            self._recomputed += tokens

    def first_token(self) -> None:
        """The first token of the answer is there. Later calls count for nothing."""
        self.times.first_token()
        if self._child_name == names.PREFILL:
            self._begin(names.DECODE)
            waited = (self._child_started - self._started) / 1e9
            self._request.set_attribute(names.TTFT, waited)

    def guessed(self, drafted: int, accepted: int) -> None:
        """So many tokens of the answer were guessed, and so many of the guesses were right; before `finish`."""
        if drafted and not self._ended:
            self._request.set_attributes({names.DRAFTED_TOKENS: drafted, names.ACCEPTED_TOKENS: accepted})

    def restored(self, found: int, pages: int, size: int, seconds: float) -> None:
        """The page store had `found` KV pages; `pages` of them were restored, `size` bytes; before `finish`."""
        if not self._ended:
            counts = {names.STORED_PAGES: found, names.RESTORED_PAGES: pages, names.RESTORED_BYTES: size}
            self._request.set_attributes({**counts, names.RESTORE_MS: seconds * 1e3})

    def finish(self, reason: str, *, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> None:
        """The answer is complete; `reason` is one of the few finish reasons. Nothing happens after `fail`."""
        self.times.finished(reason, completion_tokens)
        if self._ended:
            return
        self._request.set_attributes(
            {
                names.FINISH_REASONS: (reason,),
                names.INPUT_TOKENS: prompt_tokens,
                names.OUTPUT_TOKENS: completion_tokens,
                names.CACHED_TOKENS: cached_tokens,
            }
        )
        self._end()

    def fail(self, error: BaseException) -> None:
        """The request ended with an error; nothing happens after `finish`. Cancellation is one of the errors."""
        self.times.failed(_known(error).code.name, _known(error).reason)
        if self._ended:
            return
        known = _known(error)
        kind = type(error).__name__ if known is Internal and not isinstance(error, TriremeError) else known.reason
        self._request.set_attributes({names.ERROR_TYPE: kind, names.GRPC_STATUS: known.code.value[0]})
        if known.code in _OUR_FAULT:
            self._request.set_status(Status(StatusCode.ERROR, known.reason))
        self._end()

    def _begin(self, name: str) -> None:
        """Ends the phase before, if there is one, and begins the next at the same moment."""
        if self._ended:
            return
        now = self._clock()
        self._end_child(now)
        parent = set_span_in_context(self._request)
        self._child = self._tracer.start_span(name, parent, start_time=now)
        self._child_name, self._child_started = name, now

    def _end_child(self, now: int) -> None:
        if self._child is None:
            return
        if self._child_name in {names.PREFILL, names.DECODE} and self._child.is_recording():
            self._note_stages(self._child, now)
        self._child.end(now)
        self._child, self._child_name, self._totals = None, "", StageTotals()

    def _note_stages(self, phase: Span, now: int) -> None:
        phase.set_attributes({names.FRAMES: self._totals.frames, names.TOKENS: self._totals.tokens})
        if self._recomputed:
            phase.set_attribute(names.RECOMPUTED_TOKENS, self._recomputed)
        parent = set_span_in_context(phase)
        for index, total in enumerate(self._totals.stages):
            attributes = _stage_attributes(index, total, self._layers)
            start = min(max(total.first_ns, self._child_started), now)  # clocks of other machines differ
            span = self._tracer.start_span(f"stage {index}", parent, attributes=attributes, start_time=start)
            span.end(min(max(total.last_ns, start), now))

    def _end(self) -> None:
        if not self._ended:
            now = self._clock()
            self._end_child(now)
            self._request.end(now)
            self._ended = True


def _known(error: BaseException) -> type[TriremeError]:
    if isinstance(error, TriremeError):
        return type(error)
    return Cancelled if isinstance(error, asyncio.CancelledError) else Internal


def _request_attributes(
    model: str, request_id: str, sampling: Sampling | None, max_tokens: int | None
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
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


def _stage_attributes(index: int, total: StageTotal, layers: Layers) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        names.STAGE: index,
        names.FRAMES: total.frames,
        names.TOKENS: total.tokens,
        names.WIRE_MS: total.wire_ns / 1e6,
        names.WAIT_MS: total.wait_ns / 1e6,
        names.COMPUTE_MS: total.compute_ns / 1e6,
    }
    if index < len(layers):
        attributes[names.FIRST_LAYER], attributes[names.END_LAYER] = layers[index]
    return attributes
