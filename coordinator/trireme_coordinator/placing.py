"""Which nodes the stages are placed on: waits for the nodes that are wanted, measures them where they may differ.

The decision itself is pure (`placement/`); this asks the cluster for what it is made from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from trireme_coordinator.config import ServeConfig
from trireme_coordinator.connecting import Say
from trireme_coordinator.placement import Machine, ModelCosts, Node, Placed, place
from trireme_coordinator.probing import alike, machine_of, named, place_measured
from trireme_coordinator.ray_cluster import RayCluster
from trireme_proto.errors import ConfigurationError, PipelineUnavailable
from trireme_worker.pack import Pack


async def wanted_nodes(config: ServeConfig, cluster: RayCluster, say: Say) -> list[Node]:
    """The nodes, once there are as many as wanted: else the first of them to come would get all stages."""
    told = -1
    while len(nodes := await asyncio.to_thread(cluster.nodes)) < config.ray_nodes:
        if len(nodes) != told:
            told = len(nodes)
            say(f"Waiting for Ray nodes: {told} of {config.ray_nodes} are there")
        await asyncio.sleep(0.5)
    return nodes


def place_evenly(config: ServeConfig, pack: Pack, nodes: Sequence[Node]) -> list[Placed]:
    """Layers in order, about as many bytes each stage. ConfigurationError for more stages than layers."""
    layer_bytes = [pack.layer_bytes(i) for i in range(pack.config.layers)]
    return place(layer_bytes, pack.head_read_bytes(), nodes, config.stages)


def place_on(
    config: ServeConfig, pack: Pack, cluster: RayCluster, nodes: Sequence[Node], costs: ModelCosts, say: Say
) -> list[Placed]:
    """By what the nodes can do, where there is a choice and they differ; else evenly."""
    if len({node.host for node in nodes}) > 1 and config.stages <= len(nodes):
        say(f"Measuring {len(nodes)} nodes")
        try:
            measured = cluster.measure(nodes, config.threads)
            if not alike([machine_of(node.node_id, measured[node.node_id]) for node in nodes]):
                return place_measured(costs, nodes, measured, config.stages)
        except (ConfigurationError, PipelineUnavailable) as error:
            say(f"{error.message} Layers are placed evenly")
    return place_evenly(config, pack, nodes)


def machines(config: ServeConfig, cluster: RayCluster) -> tuple[Machine, ...]:
    """All nodes with what they can do, measured now."""
    nodes = cluster.nodes()
    return named(nodes, cluster.measure(nodes, config.threads))
