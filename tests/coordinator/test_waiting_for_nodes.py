"""Stages are placed once all wanted nodes are there, not on the first of them that came."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from trireme_coordinator.config import ServeConfig, from_environment
from trireme_coordinator.placement import Node
from trireme_coordinator.placing import wanted_nodes
from trireme_coordinator.ray_cluster import RayCluster
from trireme_proto.errors import ConfigurationError


class Joining:
    """A cluster that one more node has joined each time somebody looks, from none on."""

    def __init__(self) -> None:
        self.looks = 0

    def nodes(self) -> list[Node]:
        found = [Node(str(i), f"n{i}", "127.0.0.1") for i in range(self.looks // 2)]
        self.looks += 1
        return found


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_seconds: float) -> None:
        return

    monkeypatch.setattr(asyncio, "sleep", at_once)


async def test_waits_until_all_are_there_and_says_so_once_for_each() -> None:
    said: list[str] = []
    nodes = await wanted_nodes(ServeConfig(ray_nodes=3), cast("RayCluster", Joining()), said.append)
    assert len(nodes) == 3
    assert said == [f"Waiting for Ray nodes: {n} of 3 are there" for n in range(3)]


def test_comes_from_the_environment_and_is_bounded() -> None:
    assert from_environment({}, {"TRIREME_RAY_NODES": "4"}).ray_nodes == 4
    with pytest.raises(ConfigurationError, match="ray-nodes is 0"):
        ServeConfig(ray_nodes=0)
