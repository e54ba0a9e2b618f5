"""W3C trace context for a call's metadata, where the application traces itself with OpenTelemetry.

OpenTelemetry is never imported on its own account: without it in the process there can be no active span.
"""

from __future__ import annotations

import sys

Metadata = tuple[tuple[str, str], ...]


def context() -> Metadata:
    """`traceparent` (and `tracestate`) of the active span; empty where there is none."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - see above

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
