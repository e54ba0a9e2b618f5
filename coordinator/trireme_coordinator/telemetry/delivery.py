"""Delivers spans to a collector and keeps quiet about it.

The library says the same again with every batch that a dead collector does not take; here it is said once, and once
more when the collector is back. Delivery happens in the library's own thread, its queue bounded: requests never wait.
What is lost is counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)

_QUEUE = 8192
"""Most spans that wait for the collector; further ones are lost."""
_BATCH = 512
_LIBRARY_LEVELS = {
    "opentelemetry.exporter": logging.CRITICAL,  # each failed attempt
    "opentelemetry.sdk._shared_internal": logging.ERROR,  # each span that the full queue drops
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Of spans, since the start."""

    delivered: int = 0
    lost: int = 0
    """Not taken by the collector, or there was no room for them."""


class QuietExporter(SpanExporter):
    """Passes spans on to another exporter; says only when delivery begins to fail, and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._closing = False
        self._shut = False
        self.delivered = self.failed = 0
        for name, level in _LIBRARY_LEVELS.items():
            logging.getLogger(name).setLevel(level)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Delivers a batch. While the process ends, a collector that does not answer is not tried again."""
        if self._closing and self._failing:
            self.failed += len(spans)
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except ValueError:  # the channel was closed under a call by `close`
            result = SpanExportResult.FAILURE
        taken = result is SpanExportResult.SUCCESS
        self.delivered += len(spans) if taken else 0
        self.failed += 0 if taken else len(spans)
        self._note(failing=not taken)
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


class Delivery:
    """Takes spans and returns at once."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = QuietExporter(exporter)
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=_QUEUE, max_export_batch_size=_BATCH)
        self._offered = self._dropped = 0
        self._lock = threading.Lock()

    def offer(self, spans: Sequence[ReadableSpan]) -> None:
        """The spans of one request: all of them are lost where there is no room for all."""
        with self._lock:
            passed = self._exporter.delivered + self._exporter.failed
            if self._offered - passed + len(spans) > _QUEUE:
                self._dropped += len(spans)
                return
            self._offered += len(spans)
        for span in spans:
            self._processor.on_end(span)

    def counts(self) -> Counts:
        """What became of the spans so far; those that wait are in neither figure."""
        return Counts(self._exporter.delivered, self._exporter.failed + self._dropped)

    def flush(self) -> None:
        """Delivers what waits. Blocks."""
        self._processor.force_flush()

    def close(self) -> None:
        """Delivers what is left, within a few seconds, and stops. Blocks."""
        self._exporter.close()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        passed = self._exporter.delivered + self._exporter.failed
        self._dropped += max(0, self._offered - passed)
        self._offered = passed
