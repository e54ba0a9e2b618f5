"""Whose trace a request belongs to: the caller's (W3C traceparent, tracestate), else a new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import TraceState, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATED = frozenset({"traceparent", "tracestate"})
_PROPAGATOR = TraceContextTextMapPropagator()
_IDS = RandomIdGenerator()


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Ids as OpenTelemetry has them, whole numbers of 128 and 64 bits."""

    trace_id: int
    parent_id: int = 0
    """The caller's span; 0: there is none."""
    sampled: bool | None = None
    """What the caller decided; None: nothing, there is no caller's trace."""
    state: TraceState | None = None

    @property
    def hex(self) -> str:
        """The trace id, 32 lower-case hexadecimal digits."""
        return format_trace_id(self.trace_id)


def context_of(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext:
    """The context that a gRPC call's metadata carry; a new trace where there is none or it is malformed."""
    carrier = {key: value for key, value in metadata if key in _PROPAGATED and isinstance(value, str)}
    if "traceparent" in carrier:
        found = get_current_span(_PROPAGATOR.extract(carrier, context=Context())).get_span_context()
        if found.is_valid:
            return TraceContext(found.trace_id, found.span_id, found.trace_flags.sampled, found.trace_state)
    return TraceContext(_IDS.generate_trace_id())


def new_span_id() -> int:
    """64 random bits, not 0."""
    return _IDS.generate_span_id()
