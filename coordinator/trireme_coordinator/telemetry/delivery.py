"""Delivers spans to a collector and keeps quiet about it.

The library says the same again with every batch that a dead collector does not take; here it is said once, and once
more when the collector is back. Delivery happens in the library's own thread, its queue bounded: requests never wait.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)

_LIBRARY_LEVELS = {
    "opentelemetry.exporter": logging.CRITICAL,  # each failed attempt
    "opentelemetry.sdk._shared_internal": logging.ERROR,  # each span that the full queue drops
}


class QuietExporter(SpanExporter):
    """Passes spans on to another exporter; says only when delivery begins to fail, and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._closing = False
        self._shut = False
        for name, level in _LIBRARY_LEVELS.items():
            logging.getLogger(name).setLevel(level)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Delivers a batch. While the process ends, a collector that does not answer is not tried again."""
        if self._closing and self._failing:
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except ValueError:  # the channel was closed under a call by `close`
            result = SpanExportResult.FAILURE
        self._note(failing=result is not SpanExportResult.SUCCESS)
        return result

    def close(self) -> None:
        """The process is about to end: gives up on a collector that does not answer."""
        self._closing = True
        if self._failing:
            self.shutdown()

    def shutdown(self, timeout_millis: float = 0) -> None:  # noqa: ARG002  the library looks for it
        """Closes the connection, at once."""
        if not self._shut:
            self._shut = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)

    def _note(self, *, failing: bool) -> None:
        if failing and not self._failing and not self._closing:
            _log.warning("Traces are not delivered: the collector does not take them. Requests are not affected.")
        if self._failing and not failing:
            _log.warning("Traces are delivered again.")
        self._failing = failing
