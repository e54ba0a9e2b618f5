"""The public server of `serving`, with its metrics served and read the way Prometheus does.

async with local_pipeline(pack) as local, metered(local, store) as found:
    await found.client.generate("Hello").result()
    assert (await found.scrape()).value("trireme_generation_tokens_total") > 0
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.support.pipeline import LocalPipeline
from tests.support.serving import Served, serving

from trireme_coordinator.metrics.endpoint import Endpoint
from trireme_coordinator.metrics.observing import readiness_of, step_bytes
from trireme_coordinator.metrics.readiness import Readiness
from trireme_coordinator.metrics.redis_watch import RedisWatch
from trireme_coordinator.metrics.reports import Bandwidths, StageReports
from trireme_coordinator.metrics.sources import Sources
from trireme_coordinator.model_costs import model_costs
from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.service.door import Door
from trireme_coordinator.store import RequestStore


class Scraped:
    """One answer of /metrics, parsed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (s.name, tuple(sorted(s.labels.items()))): s.value for f in self.families.values() for s in f.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Of the one series; KeyError where there is none."""
        return self._samples[name, tuple(sorted(labels.items()))]

    def total(self, name: str) -> float:
        """Of all series of this name."""
        return sum(value for (known, _), value in self._samples.items() if known == name)

    @property
    def series(self) -> int:
        """How many there are."""
        return len(self._samples)


@dataclass(frozen=True)
class Metered:
    """A server with metrics."""

    served: Served
    sources: Sources
    readiness: Readiness
    bandwidths: Bandwidths
    endpoint: Endpoint

    async def get(self, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
        """Status and body."""
        headers = {"Host": host} if host is not None else {}
        url = f"http://{self.endpoint.address}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
            return answer.status, await answer.text()

    async def scrape(self) -> Scraped:
        """All metrics, now: stages are asked anew."""
        self.sources.reports._asked = float("-inf")
        status, text = await self.get("/metrics")
        assert status == 200
        return Scraped(text)


@asynccontextmanager
async def metered(
    local: LocalPipeline, store: RequestStore, watches: Sequence[RedisWatch] = ()
) -> AsyncIterator[Metered]:
    """Serves while the context is open."""
    pack, engine, door = local.pack, local.engine, Door()
    door.refusal = None
    placed = [Placed(i, layers, Node("", f"node-{i}", "127.0.0.1")) for i, layers in enumerate(local.ranges)]
    costs = model_costs(pack.config, layout=pack.layout, head=pack.head_kind, kv_dtype="float32")
    engine.meter.step_bytes = step_bytes(costs, placed)
    readiness, bandwidths = readiness_of(engine, door), Bandwidths(engine)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(local, store))
        sources = Sources(
            engine=engine,
            requests=served.telemetry.meter,
            writer=served.writer,
            reports=StageReports(engine, placed),
            bandwidths=bandwidths,
            readiness=readiness,
            leading=lambda: True,
            model=pack.config.name,
            version="test",
            pack_sha256=pack.sha256,
            others=watches,
        )
        endpoint = Endpoint(sources.readings, readiness.reason, ["metrics.example"])
        stack.push_async_callback(endpoint.stop)
        await endpoint.start("127.0.0.1", 0)
        yield Metered(served, sources, readiness, bandwidths, endpoint)
