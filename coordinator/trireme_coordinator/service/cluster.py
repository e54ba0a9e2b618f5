"""Cluster: what runs where, how full it is, and what other machines would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import Leadership
from trireme_coordinator.loss import RecoveryEvent
from trireme_coordinator.placement import Placed
from trireme_coordinator.service.calls import answered
from trireme_coordinator.service.placement import Previews
from trireme_coordinator.service.profiling import Profiler
from trireme_coordinator.store import SessionStore
from trireme_proto.v1 import cluster_pb2 as pb
from trireme_proto.v1 import stage_pb2
from trireme_proto.v1.cluster_pb2_grpc import ClusterServicer

_STANDS_BY = "This coordinator stands by."
Context = grpc.aio.ServicerContext[Any, Any]


class ClusterService(ClusterServicer):
    """Answers Status from the engine's books and from what each stage reports."""

    def __init__(
        self,
        engine: Engine,
        store: SessionStore,
        placed: Sequence[Placed],
        model: pb.Model,
        previews: Previews,
        leadership: Leadership,
        *,
        threads: int,
        version: str,
        profiler: Profiler | None = None,
    ) -> None:
        self._engine, self._store, self._placed, self._model = engine, store, placed, model
        self._previews, self._threads, self._version = previews, threads, version
        self._leadership = leadership
        self._profiler = profiler or Profiler(engine, placed, lambda _: 0.0)

    @answered
    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        """See the service's definition in cluster.proto."""
        pipeline = self._engine.pipeline
        reports = await pipeline.reports() if pipeline is not None else [None] * len(self._placed)
        stages = [_stage(p, r, self._threads) for p, r in zip(self._placed, reports, strict=False)]
        return pb.StatusResponse(
            model=self._model,
            stages=stages,
            load=self._load(),
            epoch=self._engine.epoch,
            ready=self._engine.ready.is_set(),
            version=self._version,
            session_store_ok=await self._store.ping(),
            leading=self._leadership.leading,
            leader=await self._leadership.leader(),
            reason=self._engine.recoveries.trouble if self._leadership.leading else _STANDS_BY,
            recoveries=self._engine.recoveries.count,
            last_recovery=_recovery(self._engine.recoveries.events),
        )

    @answered
    async def PreviewPlacement(
        self, request: pb.PreviewPlacementRequest, context: Context
    ) -> pb.PreviewPlacementResponse:
        """See the service's definition in cluster.proto."""
        return await self._previews.answer(request)

    @answered
    async def Profile(self, request: pb.ProfileRequest, context: Context) -> pb.ProfileResponse:
        """See the service's definition in cluster.proto."""
        return await self._profiler.answer(request, self._load)

    def _load(self) -> pb.Load:
        scheduler = self._engine.scheduler
        return pb.Load(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            queue_limit=scheduler.config.queue,
            kv_pages_reserved=scheduler.budget.pages_reserved,
            kv_pages_total=scheduler.budget.pages,
            sessions_cached=scheduler.budget.parked,
        )


def _recovery(events: Sequence[RecoveryEvent]) -> pb.Recovery | None:
    if not events:
        return None
    last = events[-1]
    return pb.Recovery(
        cause=last.cause,
        stages=last.stages,
        method=last.method,
        detection_seconds=last.detection_s,
        rebuild_seconds=last.rebuild_s,
        sequences=last.sequences,
        tokens=last.tokens,
    )


def _stage(placed: Placed, report: stage_pb2.ReportResponse | None, threads: int) -> pb.StageStatus:
    status = pb.StageStatus(
        stage=placed.stage,
        first_layer=placed.layers.start,
        end_layer=placed.layers.stop,
        node=placed.node.name,
        threads=threads,
    )
    if report is not None:
        status.kv_pages_total = report.kv_pages_total
        status.kv_pages_used = report.kv_pages_used
        status.slots_used = report.slots_used
        status.integrity_ok = not report.integrity_error
        status.rss_bytes = report.rss_bytes
        status.steps = report.steps
        status.busy_seconds = report.busy_ns / 1e9
    return status
