"""What `traces()` and `trace()` return: where the time of requests went. Frozen values; no protobuf, no gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

SpanValue: TypeAlias = str | int | float | tuple["SpanValue", ...]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """One request."""

    trace_id: str
    """W3C trace id, 32 lower-case hexadecimal digits; requests of one caller's trace share it."""
    request_id: str
    start_ns: int
    """Nanoseconds since 1970."""
    duration_ns: int
    first_token_ns: int
    """From the request to its first token; 0: there was none."""
    prompt_tokens: int
    completion_tokens: int
    outcome: str
    """A finish reason, or the reason of an error in capitals."""
    recoveries: int
    """Times that the pipeline was rebuilt meanwhile."""
    kept: str
    """Why it was delivered to the collector: "caller", "steps", "error", "recovery", "slow", "slowest" or "share";
    empty: it was not.
    """


@dataclass(frozen=True, slots=True)
class SpanProcess:
    """Who did the work that a span tells of."""

    service: str
    """ "trireme-coordinator" or "trireme-stage"."""
    instance: str
    host: str
    process_id: int


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a request."""

    span_id: str
    parent_span_id: str
    """Empty: the trace begins here. Of the first span it may be the caller's own."""
    name: str
    start_ns: int
    end_ns: int
    process: SpanProcess
    attributes: Mapping[str, SpanValue]
    error: bool

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class RequestSpans:
    """All that is known of one request's time. A parent comes before its children; the first span is the request's."""

    summary: TraceSummary
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class RecentTraces:
    """The last requests, and what became of spans that were to go to a collector."""

    traces: tuple[TraceSummary, ...]
    """The most recent first."""
    delivering: bool
    """Whether there is a collector."""
    spans_delivered: int
    spans_lost: int
