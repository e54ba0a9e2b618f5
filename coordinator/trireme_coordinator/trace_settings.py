"""Settings of traces."""

from __future__ import annotations

from dataclasses import dataclass

from trireme_proto.errors import ConfigurationError

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What is kept of requests, and what is delivered; where to is OpenTelemetry's own to say (OTEL_*)."""

    trace_share: float = 0.1
    """Share of the requests whose traces are delivered without there being a reason, 0 to 1. Requests that failed, that
    saw a recovery, that were slow, or whose caller samples its own trace always are."""
    trace_slow_ms: int = 2000
    """Milliseconds to the first token, or between two, above which a request is slow."""
    trace_buffer_mb: int = 16
    """Megabytes (2^20 bytes) of recent traces that are kept in memory for `trireme trace`. 0: none are."""

    def __post_init__(self) -> None:
        for name, low, high in (("trace_share", 0, 1), ("trace_slow_ms", 0, _DAY_MS), ("trace_buffer_mb", 0, 4096)):
            if not low <= getattr(self, name) <= high:  # also refuses NaN
                given = getattr(self, name)
                raise ConfigurationError(f"{name.replace('_', '-')} is {given}; it must be {low} to {high}.")
