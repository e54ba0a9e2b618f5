"""Wires traces: what is recorded, kept and delivered, and what this process is called.

Without a collector nothing is delivered; trace ids are made all the same, so that an answer can always be found again
in logs. No global state of the library is touched.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from trireme_coordinator.metrics.requests import RequestMeter
from trireme_coordinator.telemetry import names
from trireme_coordinator.telemetry.assembly import assemble
from trireme_coordinator.telemetry.context import context_of
from trireme_coordinator.telemetry.delivery import Counts, Delivery
from trireme_coordinator.telemetry.endpoint import exporter_of
from trireme_coordinator.telemetry.export import SpanMaker
from trireme_coordinator.telemetry.messages import request_spans
from trireme_coordinator.telemetry.numbering import numbered
from trireme_coordinator.telemetry.recoveries import Books
from trireme_coordinator.telemetry.request_trace import Clock, RequestTrace, Sampling
from trireme_coordinator.telemetry.ring import Ring
from trireme_coordinator.telemetry.sampling import Facts, TailSampling
from trireme_coordinator.telemetry.tree import COORDINATOR_SERVICE, Process
from trireme_coordinator.trace_settings import TraceSettings

_EXPORT_SECONDS = 3.0
"""Longest time for one batch, all attempts together; also about the longest time that `close` takes."""


class Telemetry:
    """Makes traces. One for each process."""

    def __init__(
        self,
        settings: TraceSettings | None = None,
        delivery: Delivery | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        clock: Clock = time.time_ns,
    ) -> None:
        settings = settings or TraceSettings()
        self.ring = Ring(settings.trace_buffer_mb << 20)
        self._sampling = TailSampling(settings.trace_share, settings.trace_slow_ms / 1e3)
        self._delivery, self._clock = delivery, clock
        self._maker = SpanMaker(environment or {})
        host = socket.gethostname()
        self._process = Process(COORDINATOR_SERVICE, f"{host}-{os.getpid()}", host, os.getpid())
        self.meter = RequestMeter()
        """Counts requests, whether or not they are traced."""
        self._aside = ThreadPoolExecutor(1, "traces")

    @property
    def delivers(self) -> bool:
        """Whether there is a collector."""
        return self._delivery is not None

    def counts(self) -> Counts:
        """What became of spans that were to be delivered."""
        return self._delivery.counts() if self._delivery is not None else Counts()

    def request(
        self,
        metadata: Iterable[tuple[str, str | bytes]],
        *,
        model: str,
        request_id: str,
        tenant: str = "",
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        every_step: bool = False,
        recoveries: Books | None = None,
    ) -> RequestTrace:
        """The trace of a request that has just come in; `metadata` is the gRPC call's. It is part of the caller's trace
        where the caller sent one (W3C traceparent), else a new one. `every_step`: each step is to be a span.
        """
        trace = RequestTrace(
            context_of(metadata),
            self._clock,
            self._ended if self.ring.limit or self.delivers else None,
            model=model,
            request_id=request_id,
            sampling=sampling,
            max_tokens=max_tokens,
            every_step=every_step,
            recoveries=recoveries,
        )
        trace.times = self.meter.begin(tenant)
        return trace

    async def settled(self) -> None:
        """Returns when all that has ended is kept."""
        await asyncio.get_running_loop().run_in_executor(self._aside, lambda: None)

    def close(self) -> None:
        """Delivers what is left, within a few seconds, and stops. Blocks."""
        self._aside.shutdown()
        if self._delivery is not None:
            self._delivery.close()

    def _ended(self, trace: RequestTrace) -> None:
        if trace.every_step:  # thousands of spans: others are not to wait for them
            self._aside.submit(self._keep, trace)
        else:
            self._keep(trace)

    def _keep(self, trace: RequestTrace) -> None:
        root = assemble(trace, self._process)
        kept = self._sampling.decide(_facts(trace, root.attributes.get(names.RECOVERIES)))
        if not (kept or self.ring.limit):
            return
        found = numbered(root, trace.context)
        if self.ring.limit:
            self.ring.put(request_spans(trace, found, kept))
        if kept and self._delivery is not None:
            self._delivery.offer(self._maker.spans(found, trace.context))


def setup_telemetry(
    endpoint: str | None = None,
    settings: TraceSettings | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    clock: Clock = time.time_ns,
) -> Telemetry:
    """Telemetry that delivers by OTLP, over gRPC or HTTP, to `endpoint` (http://HOST:PORT, or https:// for TLS).

    Without `endpoint` the standard variables OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT say
    where; without those nothing is delivered. ConfigurationError for an endpoint or a protocol that is no use.
    """
    environment = os.environ if environment is None else environment
    exporter = exporter_of(endpoint, environment, _EXPORT_SECONDS)
    delivery = Delivery(exporter) if exporter is not None else None
    return Telemetry(settings, delivery, environment=environment, clock=clock)


def _facts(trace: RequestTrace, recoveries: object) -> Facts:
    first = trace.at.get(names.DECODE, 0)
    steps, decode = (trace.decode.frames, trace.decode.longest_gap_ns) if trace.decode is not None else (0, 0)
    last = trace.at.get(names.DELIVER, trace.ended_ns)
    return Facts(
        trace_id=trace.context.trace_id,
        caller_sampled=trace.context.sampled,
        steps=trace.every_step,
        error=bool(trace.error),
        recoveries=recoveries if isinstance(recoveries, int) else 0,
        first_token_s=(first - trace.started) / 1e9 if first else 0.0,
        token_s=(last - first) / steps / 1e9 if steps else 0.0,
        pause_s=decode / 1e9,
    )
