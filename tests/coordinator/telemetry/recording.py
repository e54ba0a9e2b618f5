"""A telemetry that keeps its spans, and a clock that moves only when told."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trireme_coordinator.telemetry import RequestTrace, StepReport, Telemetry
from trireme_coordinator.telemetry.delivery import Counts, Delivery
from trireme_coordinator.trace_settings import TraceSettings

MS = 1_000_000
START = 1_700_000_000 * 1000 * MS


class FakeClock:
    """Nanoseconds since 1970."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def advance(self, milliseconds: float) -> None:
        self.now += round(milliseconds * MS)


@dataclass(frozen=True)
class Timing:
    wire_ns: int
    wait_ns: int
    compute_ns: int
    linear_ns: int = 0
    attention_ns: int = 0
    head_ns: int = 0
    sample_ns: int = 0


def step(timings, **more) -> StepReport:
    return StepReport(timings, **more)


class AtOnce(Delivery):
    """Delivers nothing later than now."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._memory = exporter

    def offer(self, spans) -> None:
        self._memory.export(spans)

    def counts(self) -> Counts:
        return Counts(len(self._memory.get_finished_spans()))

    def close(self) -> None:
        """Nothing waits."""


@dataclass(frozen=True)
class Sampling:
    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.9
    seed: int = 42


class Recording:
    def __init__(self, settings: TraceSettings | None = None) -> None:
        self.clock = FakeClock()
        self.exporter = InMemorySpanExporter()
        settings = settings or TraceSettings(trace_share=1.0)
        self.telemetry = Telemetry(settings, AtOnce(self.exporter), clock=self.clock)

    def request(self, metadata=(), **more) -> RequestTrace:
        return self.telemetry.request(metadata, **({"model": "tiny", "request_id": "r1"} | more))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """Finished spans by path, such as "generate/prefill/stage 0"."""
        finished = {span.context.span_id: span for span in self.exporter.get_finished_spans()}

        def path(span: ReadableSpan) -> str:
            parent = finished.get(span.parent.span_id) if span.parent else None
            return span.name if parent is None else f"{path(parent)}/{span.name}"

        return {path(span): span for span in finished.values()}

    def times(self) -> dict[str, tuple[float, float]]:
        """(start, end) of each span by path, in milliseconds since the clock's start."""
        return {
            path: ((span.start_time - START) / MS, (span.end_time - START) / MS) for path, span in self.spans.items()
        }


def whole_request(recording: Recording, **more) -> RequestTrace:
    """tokenize 2 ms, 1 ms nothing, queue 10 ms, prefill 30 ms in two chunks, decode 3 x 5 ms, 1 ms to the end."""
    clock = recording.clock
    trace = recording.request(**more)
    clock.advance(2)
    trace.tokenized()
    clock.advance(1)
    trace.queued()
    clock.advance(10)
    trace.admitted([(0, 3), (3, 6)])
    chunk = [Timing(1 * MS, 2 * MS, 3 * MS), Timing(1 * MS, 0, 4 * MS)]  # 11 ms in all
    for tokens in (7, 2):
        clock.advance(15)
        trace.step("prefill", step(chunk, round_ns=11 * MS), tokens)
    trace.first_token()
    for _ in range(3):
        clock.advance(5)
        trace.step("decode", step([Timing(MS // 2, 0, 2 * MS), Timing(MS // 2, MS, MS)]), 1)
    trace.complete()
    clock.advance(1)
    trace.finish("length", prompt_tokens=12, completion_tokens=4, cached_tokens=3)
    return trace
