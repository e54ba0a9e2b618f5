"""Puts the metrics of a coordinator together, and has them served and sent where that was asked for."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from trireme_coordinator.config import ServeConfig, split_address
from trireme_coordinator.connecting import Say, background
from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import Leadership
from trireme_coordinator.metrics.endpoint import Endpoint
from trireme_coordinator.metrics.otlp import push_from_environment
from trireme_coordinator.metrics.ray_watch import RayState, RayWatch
from trireme_coordinator.metrics.readiness import Progress, Readiness
from trireme_coordinator.metrics.redis_watch import RedisWatch
from trireme_coordinator.metrics.reports import Bandwidths, StageReports
from trireme_coordinator.metrics.sources import Sources
from trireme_coordinator.placement import ModelCosts, Placed
from trireme_coordinator.service.door import Door
from trireme_coordinator.service.profiling import Profiler
from trireme_coordinator.store import SessionWriter
from trireme_coordinator.telemetry import Telemetry
from trireme_coordinator.telemetry.naming import product_version, resource
from trireme_worker.pack import Pack


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is to watch."""

    engine: Engine
    placed: Sequence[Placed]
    telemetry: Telemetry
    writer: SessionWriter
    leadership: Leadership
    door: Door
    pack: Pack
    redis: Sequence[tuple[str, str]]
    """URL and role of each."""
    ray: Callable[[], RayState] | None
    """Blocks."""


@dataclass(frozen=True, slots=True)
class Observing:
    """What others need of it."""

    readiness: Readiness
    profiler: Profiler
    address: str
    """HOST:PORT of the endpoint, empty where there is none."""


@asynccontextmanager
async def observing(config: ServeConfig, what: Observed, say: Say) -> AsyncIterator[Observing]:
    """Serves and sends while the context is open. ConfigurationError."""
    readiness, bandwidths = readiness_of(what.engine, what.door), Bandwidths(what.engine)
    async with AsyncExitStack() as stack:
        watches: list[RedisWatch | RayWatch] = [RedisWatch(url, role) for url, role in what.redis]
        if what.ray is not None:
            watches.append(RayWatch(what.ray))
        sources = _sources(what, readiness, bandwidths, watches)
        push = push_from_environment(sources.readings, resource(os.environ), os.environ)
        await background(bandwidths.keep(), stack)
        if push is not None:
            await background(push.keep(), stack)
        if push is not None or config.metrics_listen:
            for watch in watches:
                await background(watch.keep(), stack)
        address = await _served(config, sources, stack) if config.metrics_listen else ""
        if address:
            say(f"Metrics are on http://{address}/metrics")
        yield Observing(readiness, Profiler(what.engine, what.placed, bandwidths.of), address)


async def _served(config: ServeConfig, sources: Sources, stack: AsyncExitStack) -> str:
    hosts = [name.strip() for name in config.metrics_hosts.split(",") if name.strip()]
    endpoint = Endpoint(sources.readings, sources.readiness.reason, hosts)
    stack.push_async_callback(endpoint.stop)
    await endpoint.start(*split_address(config.metrics_listen))
    return endpoint.address


def _sources(
    what: Observed, readiness: Readiness, bandwidths: Bandwidths, others: Sequence[RedisWatch | RayWatch]
) -> Sources:
    return Sources(
        engine=what.engine,
        requests=what.telemetry.meter,
        writer=what.writer,
        reports=StageReports(what.engine, what.placed),
        bandwidths=bandwidths,
        readiness=readiness,
        leading=lambda: what.leadership.leading,
        model=what.pack.config.name,
        version=product_version(),
        pack_sha256=what.pack.sha256,
        dropped_spans=lambda: what.telemetry.counts().lost,
        others=others,
    )


def readiness_of(engine: Engine, door: Door) -> Readiness:
    """By who may come in, whether the pipeline is complete, and how its steps get on."""

    def trouble() -> str:
        if door.refusal is not None:
            return door.refusal.message
        return "" if engine.ready.is_set() else engine.recoveries.trouble or "The pipeline is being rebuilt."

    return Readiness(time.monotonic, lambda: engine.meter.count, lambda: engine.busy, trouble, Progress())


def step_bytes(costs: ModelCosts, placed: Sequence[Placed]) -> list[tuple[int, int]]:
    """Weights that each stage reads for a step, and for one that samples; bytes."""
    layers = [sum(costs.layer_bytes[stage.layers.start : stage.layers.stop]) for stage in placed]
    heads = [costs.head_read_bytes if stage.layers.stop == costs.layers else 0 for stage in placed]
    return [(read, read + head) for read, head in zip(layers, heads, strict=True)]
