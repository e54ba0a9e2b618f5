"""The cluster under test: Ray nodes, a Valkey, coordinators and the relays between them, all of them processes.

    callers --relay--> coordinator --relay--> Valkey
                            |
                       Ray head (no stages), nodes 1..n (stages)

Owns starting and stopping. What is done to it in between is the nemesis's business.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fault.network import Loopback, network
from tests.fault.processes import Coordinator, RayNode, Valkey, clean_environment
from tests.fault.relay import Relay
from tests.support.ports import free_port


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the cluster is."""

    nodes: int = 3
    """Besides the head."""
    stages: int = 2
    coordinators: int = 1
    namespaces: bool = False
    """Each node in a network namespace of its own."""


@dataclass(slots=True)
class Cluster:
    """All parts of it."""

    network: Loopback
    head: RayNode
    nodes: list[RayNode]
    valkey: Valkey
    store_relay: Relay
    """Between coordinators and Valkey."""
    coordinators: list[Coordinator]
    client_relays: list[Relay]
    """Between some callers and coordinators, one for each coordinator."""
    folder: Path

    @property
    def target(self) -> str:
        """What a caller connects to."""
        return ",".join(coordinator.address for coordinator in self.coordinators)

    @property
    def relayed_target(self) -> str:
        """The same through the relays."""
        return ",".join(relay.address for relay in self.client_relays)


@asynccontextmanager
async def running(shape: Shape) -> AsyncIterator[Cluster]:
    """A cluster that serves. Everything has ended when the context is left; logs are kept where something failed."""
    folder = Path(tempfile.mkdtemp(prefix="tf-"))  # a short name: Ray's sockets lie in it
    environment = clean_environment(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",
    )
    async with AsyncExitStack() as stack:
        net = stack.enter_context(network(shape.nodes, namespaces=shape.namespaces))
        address = f"{net.hub}:{free_port(net.hub)}"
        head = RayNode("head", net.hub, address, folder, environment)
        nodes = [
            RayNode(f"node-{n}", net.address(n), address, folder, environment, net.inside(n))
            for n in range(1, shape.nodes + 1)
        ]
        for program in (head, *nodes):
            stack.callback(program.kill)
        valkey = Valkey(net.hub, folder, environment)
        stack.callback(valkey.kill)
        await asyncio.gather(valkey.start(), _start_ray(head, nodes))
        relay = await stack.enter_async_context(Relay(valkey.address, net.hub))
        arguments = [
            "--ray-address", address, "--redis-url", valkey.url(relay.address), "--stages", str(shape.stages),
            "--ray-nodes", str(shape.nodes), "--name", "fault", "--insecure-no-stage-tls",
        ]  # fmt: skip
        coordinators = [
            Coordinator(f"coordinator-{n}", arguments, folder, environment) for n in range(shape.coordinators)
        ]
        for coordinator in coordinators:
            stack.callback(coordinator.kill)
            await coordinator.start()
        relays = [await stack.enter_async_context(Relay(c.address)) for c in coordinators]
        yield Cluster(net, head, nodes, valkey, relay, coordinators, relays, folder)
    shutil.rmtree(folder, ignore_errors=True)


async def _start_ray(head: RayNode, nodes: list[RayNode]) -> None:
    await head.start()
    await asyncio.gather(*(node.come_back() for node in nodes))
