"""Cluster.Profile: looks at the counters twice, and says what held the pipeline back in between."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from trireme_coordinator.engine import Engine
from trireme_coordinator.metrics.profile import Demand, Profile, look, profile, verdict
from trireme_coordinator.placement import Placed
from trireme_proto.errors import InvalidRequest
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import cluster_pb2 as pb

_SECONDS, _LEAST_SECONDS = 5.0, 0.1


class Profiler:
    """Of one engine. `bandwidth`: of a stage's memory, bytes a second; 0: not known."""

    def __init__(self, engine: Engine, placed: Sequence[Placed], bandwidth: Callable[[int], float]) -> None:
        self._engine, self._placed, self._bandwidth = engine, placed, bandwidth

    async def answer(self, request: pb.ProfileRequest, load: Callable[[], pb.Load]) -> pb.ProfileResponse:
        """What happens in the seconds that were asked for. InvalidRequest."""
        seconds = request.seconds or _SECONDS
        if not math.isfinite(seconds) or not _LEAST_SECONDS <= seconds <= LIMITS.profile_seconds:
            raise InvalidRequest(f"seconds must be {_LEAST_SECONDS} to {LIMITS.profile_seconds}.")
        first = look(self._engine.meter, time.perf_counter_ns())
        await asyncio.sleep(seconds)
        found = profile(first, look(self._engine.meter, time.perf_counter_ns()))
        return self._response(found, load())

    def _response(self, found: Profile, load: pb.Load) -> pb.ProfileResponse:
        slots = self._engine.scheduler.config.slots
        bandwidths = [self._bandwidth(stage) for stage in range(len(found.stages))]
        kv_share = load.kv_pages_reserved / load.kv_pages_total if load.kv_pages_total else 0.0
        held = verdict(found, Demand(load.running, load.waiting, slots, kv_share, bandwidths))
        return pb.ProfileResponse(
            seconds=found.seconds,
            bottleneck=held.bottleneck,
            stage=held.stage,
            advice=held.advice,
            stages=self._stages(found, bandwidths),
            steps=found.steps,
            tokens=found.tokens,
            active=found.active,
            step_seconds=found.step_s,
            other_seconds=found.other_s,
            load=load,
            slots=slots,
        )

    def _stages(self, found: Profile, bandwidths: Sequence[float]) -> list[pb.ProfiledStage]:
        return [
            pb.ProfiledStage(
                stage=where.stage,
                node=where.node.name,
                first_layer=where.layers.start,
                end_layer=where.layers.stop,
                busy=each.busy,
                bubble=each.bubble,
                compute_seconds=each.compute_s,
                wait_seconds=each.wait_s,
                wire_seconds=each.wire_s,
                read_bytes_per_s=each.read_bytes_per_s,
                bandwidth_bytes_per_s=bandwidth,
            )
            for where, each, bandwidth in zip(self._placed, found.stages, bandwidths, strict=False)
        ]
