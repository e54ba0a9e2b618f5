"""Gathers all readings: what is counted here, what the engine, the scheduler and the writer know, what stages report.

Nothing is computed that somebody knows already. Runs on the event loop, for each scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from trireme_coordinator.engine import Engine
from trireme_coordinator.metrics.readiness import Readiness
from trireme_coordinator.metrics.reports import Bandwidths, StageReports
from trireme_coordinator.metrics.requests import RequestMeter
from trireme_coordinator.metrics.stage_figures import read_pipeline, read_reports, read_steps
from trireme_coordinator.metrics.values import Readings
from trireme_coordinator.store import SessionWriter

_OPERATION, _PROVIDER = "text_completion", "trireme"
_LONGEST_NAME = 128


class Watched(Protocol):
    """Somebody who keeps figures of their own."""

    def read(self, readings: Readings) -> None: ...


@dataclass(slots=True)
class Sources:
    """Everything that has figures."""

    engine: Engine
    requests: RequestMeter
    writer: SessionWriter
    reports: StageReports
    bandwidths: Bandwidths
    readiness: Readiness
    leading: Callable[[], bool]
    model: str
    version: str
    pack_sha256: str
    dropped_spans: Callable[[], int] = lambda: 0
    others: Sequence[Watched] = ()
    process: psutil.Process = field(default_factory=psutil.Process)

    async def readings(self) -> Readings:
        """All of them, now."""
        found = Readings()
        reports = await self.reports.get() if self.leading() else []
        self.readiness.reason()  # looks how the work gets on
        self._read_requests(found)
        read_steps(found, self.engine.meter, [stage for stage, _ in reports])
        read_pipeline(found, self.engine, stalled_s=self.readiness.progress.stalled_s, leading=self.leading())
        read_reports(found, reports, self.bandwidths.of)
        self._read_sessions(found)
        self._read_process(found)
        for other in self.others:
            other.read(found)
        return found

    def _read_requests(self, found: Readings) -> None:
        meter, scheduler = self.requests, self.engine.scheduler
        genai = (_OPERATION, _PROVIDER, self.model[:_LONGEST_NAME])
        found.put("gen_ai_server_time_to_first_token_seconds", meter.first_token, *genai)
        found.put("gen_ai_server_time_per_output_token_seconds", meter.per_token, *genai)
        for error, histogram in meter.durations.items():
            found.put("gen_ai_server_request_duration_seconds", histogram, *genai, error)
        found.put("trireme_request_queue_seconds", meter.queue)
        found.put("trireme_request_prefill_seconds", meter.prefill)
        found.put_all("trireme_requests_total", meter.requests)
        found.put_all("trireme_tenant_requests_total", meter.tenants)
        found.put_all("trireme_calls_total", meter.calls)
        found.put("trireme_requests_running", len(scheduler.running))
        found.put("trireme_requests_waiting", len(scheduler.waiting))
        found.put("trireme_requests_queue_limit", scheduler.config.queue)

    def _read_sessions(self, found: Readings) -> None:
        budget, counters = self.engine.scheduler.budget, self.writer.counters
        found.put("trireme_kv_pages_capacity", budget.pages)
        found.put("trireme_kv_pages_reserved", budget.pages_reserved)
        found.put("trireme_sessions_cached", budget.parked)
        found.put("trireme_session_backlog_bytes", self.writer.backlog_bytes)
        found.put("trireme_session_backlog_limit_bytes", self.writer.backlog_limit)
        found.put("trireme_session_store_away", float(self.writer.away))
        found.put("trireme_session_stored_tokens_total", counters.stored_tokens)
        found.put("trireme_session_store_retries_total", counters.retries)
        found.put("trireme_session_lost_tokens_total", counters.lost_tokens)
        found.put("trireme_session_lost_sessions_total", counters.lost_sessions)

    def _read_process(self, found: Readings) -> None:
        with self.process.oneshot():
            times = self.process.cpu_times()
            found.put("trireme_coordinator_resident_memory_bytes", self.process.memory_info().rss)
            found.put("trireme_coordinator_cpu_seconds_total", times.user + times.system)
            found.put("trireme_coordinator_start_time_seconds", self.process.create_time())
        found.put("trireme_build_info", 1, self.version, self.model[:_LONGEST_NAME], self.pack_sha256)
        found.put("trireme_spans_dropped_total", self.dropped_spans())
        bounded = (self.requests.reasons, self.requests.methods, self.requests.tenant_labels, self.engine.meter.bounded)
        found.put("trireme_metrics_folded_total", sum(each.folded for each in bounded))
