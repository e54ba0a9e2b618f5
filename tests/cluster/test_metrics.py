"""Metrics, readiness and a profile of a coordinator with stages on a real Ray cluster."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.conftest import NODES, Serve

from trireme_coordinator.metrics.catalogue import FAMILIES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def get(address: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
        return answer.status, await answer.text()


async def values(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    _, text = await get(address, "/metrics")
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def seen(address: str, name: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All values, once this metric is among them: some are asked for in the background."""
    async with asyncio.timeout(60):
        while True:
            found = await values(address)
            if name in {known for known, _ in found}:
                return found
            await asyncio.sleep(0.1)


async def test_what_a_coordinator_tells(serve: Serve) -> None:
    async with serve(stages=2, metrics_listen="127.0.0.1:0", log_level="info") as (server, client):
        assert (await get(server.metrics, "/readyz")) == (200, "ready\n")
        assert (await get(server.metrics, "/healthz"))[0] == 200
        await seen(server.metrics, "trireme_ray_nodes")
        await seen(server.metrics, "trireme_redis_used_memory_bytes")
        await seen(server.metrics, "trireme_stage_read_bandwidth_bytes_per_second")
        profiling = asyncio.ensure_future(client.profile(2))
        for _ in range(4):
            await client.generate("Once upon a time", max_tokens=40, ignore_eos=True).result()
        profile = await profiling
        found = await values(server.metrics)
        assert found["trireme_ray_nodes", frozenset({("state", "alive")})] == NODES
        assert found["trireme_redis_up", frozenset({("role", "sessions")})] == 1
        assert found["trireme_requests_total", frozenset({("code", "OK"), ("reason", "length")})] == 4
        (placed, *_), nodes = server.placed, [stage.node.name for stage in server.placed]
        for stage, node in enumerate(nodes):
            labels = frozenset({("stage", str(stage)), ("node", node)})
            assert found["trireme_stage_up", labels] == 1
            assert found["trireme_stage_busy_seconds_total", labels] > 0
            assert found["trireme_stage_resident_memory_bytes", labels] > 1e7
        layers = f"0-{placed.layers.stop - 1}"
        info = {("stage", "0"), ("node", placed.node.name), ("ip", placed.node.address), ("layers", layers)}
        assert found["trireme_stage_info", frozenset(info)] == 1
        assert {name.split("_bucket")[0].split("_count")[0].split("_sum")[0] for name, _ in found} <= set(FAMILIES)
        assert profile.bottleneck in {"memory", "compute", "wire", "scheduler", "idle"}
        assert profile.steps > 20
        assert all(stage.bandwidth_bytes_per_s > 0 for stage in profile.stages)
        await server.drain(0)
        status, reason = await get(server.metrics, "/readyz")
        assert (status, reason) == (503, "This coordinator is stopping.\n")
