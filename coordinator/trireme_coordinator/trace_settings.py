"""The settings of `serve` about traces. Joins config.py and the command line; see options.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from trireme_coordinator.options import text
from trireme_proto.errors import ConfigurationError

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class TraceSettings:
    """A part of ServeConfig: what is kept of requests, and what is delivered; where to is OpenTelemetry's own to say
    (OTEL_*).
    """

    trace_share: float = field(
        default=0.1,
        metadata=text("Share of requests traced to the collector for no special reason, 0 to 1. Default: 0.1."),
    )
    """Requests that failed, that saw a recovery, that were slow, or whose caller samples its own trace always are."""
    trace_slow_ms: int = field(
        default=2000,
        metadata=text("Requests with a wait longer than this for a token are always traced. Default: 2000."),
    )
    """Milliseconds to the first token, or between two, above which a request is slow."""
    trace_buffer_mb: int = field(default=16, metadata=text("Memory for `trireme trace`, in MiB; 0: none. Default: 16."))
    """Megabytes (2^20 bytes) of recent traces that are kept in memory."""


def check_traces(settings: TraceSettings) -> None:
    """ConfigurationError where a setting is out of its range."""
    for name, low, high in (("trace_share", 0, 1), ("trace_slow_ms", 0, _DAY_MS), ("trace_buffer_mb", 0, 4096)):
        given = getattr(settings, name)
        if not low <= given <= high:  # also refuses NaN
            raise ConfigurationError(f"{name.replace('_', '-')} is {given}; it must be {low} to {high}.")
