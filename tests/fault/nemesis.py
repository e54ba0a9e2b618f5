"""Does what the schedule says, to the cluster under test, and takes it back.

Each kind is a context manager: entered it has been done, left it has been taken back. What cannot be done because its
target is not there at that moment is counted as missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psutil
from tests.fault.cluster import Cluster
from tests.fault.history import FaultBegan, FaultEnded, History
from tests.fault.processes import Coordinator, RayNode
from tests.fault.schedule import Fault

Doing = AsyncIterator[str]
"""Yields once: what was hit."""


class Nemesis:
    """Runs a schedule."""

    def __init__(self, cluster: Cluster, history: History) -> None:
        self.cluster, self._history = cluster, history
        self.done: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()

    async def run(self, faults: Sequence[Fault]) -> None:
        """Returns when all faults have been taken back. The first that cannot be taken back ends it, with its error."""
        start = self._history.now()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(start + fault.at - self._history.now(), 0))
                group.create_task(self._one(fault))

    async def _one(self, fault: Fault) -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                target = await stack.enter_async_context(_DOINGS[fault.kind](self.cluster, fault.target))
            except ProcessLookupError:
                self.missed[fault.kind] += 1
                return
            self.done[fault.kind] += 1
            self._history.add(FaultBegan(self._history.now(), fault.number, fault.kind, target))
            await asyncio.sleep(fault.seconds)
        self._history.add(FaultEnded(self._history.now(), fault.number))


def _stage(cluster: Cluster, target: int) -> tuple[RayNode, int]:
    found = [(node, process.pid) for node in cluster.nodes for process in node.stages()]
    if not found:
        raise ProcessLookupError
    return found[target % len(found)]


def _node(cluster: Cluster, target: int) -> RayNode:
    """A node with a stage on it: to lose another one is no loss."""
    return _stage(cluster, target)[0]


def _coordinator(cluster: Cluster, target: int) -> Coordinator:
    return cluster.coordinators[target % len(cluster.coordinators)]


def _worker_gets(number: signal.Signals) -> Callable[[Cluster, int], AbstractAsyncContextManager[str]]:
    @asynccontextmanager
    async def doing(cluster: Cluster, target: int) -> Doing:
        node, pid = _stage(cluster, target)
        os.kill(pid, number)
        yield f"stage on {node.name}"

    return doing


@asynccontextmanager
async def _worker_freeze(cluster: Cluster, target: int) -> Doing:
    node, pid = _stage(cluster, target)
    with _stopped(pid):
        yield f"stage on {node.name}"


@asynccontextmanager
async def _raylet_freeze(cluster: Cluster, target: int) -> Doing:
    node = _node(cluster, target)
    with _stopped(node.raylet()):
        yield node.name


@asynccontextmanager
async def _node_kill(cluster: Cluster, target: int) -> Doing:
    node = _node(cluster, target)
    family = node.family()
    os.kill(node.raylet(), signal.SIGKILL)
    yield node.name
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await node.come_back()


@asynccontextmanager
async def _node_partition(cluster: Cluster, target: int) -> Doing:
    node = _node(cluster, target)
    number = cluster.nodes.index(node) + 1
    cluster.network.cut(number)
    try:
        yield node.name
    finally:
        cluster.network.join(number)


@asynccontextmanager
async def _coordinator_freeze(cluster: Cluster, target: int) -> Doing:
    coordinator = _coordinator(cluster, target)
    with _stopped(coordinator.pid):
        yield coordinator.name


def _coordinator_gets(number: signal.Signals) -> Callable[[Cluster, int], AbstractAsyncContextManager[str]]:
    @asynccontextmanager
    async def doing(cluster: Cluster, target: int) -> Doing:
        coordinator = _coordinator(cluster, target)
        process = coordinator.process
        os.kill(coordinator.pid, number)
        yield coordinator.name
        if process is not None:
            await asyncio.to_thread(process.wait, 60)
        await coordinator.come_back()

    return doing


@asynccontextmanager
async def _redis_kill(cluster: Cluster, target: int) -> Doing:
    os.kill(cluster.valkey.pid, signal.SIGKILL)
    cluster.valkey.kill()
    yield cluster.valkey.name
    await cluster.valkey.come_back()


@asynccontextmanager
async def _redis_freeze(cluster: Cluster, target: int) -> Doing:
    with _stopped(cluster.valkey.pid):
        yield cluster.valkey.name


def _redis_told(do: str, undo: str) -> Callable[[Cluster, int], AbstractAsyncContextManager[str]]:
    """A server that is down or frozen for another reason is not there; one that was started anew has forgotten it."""

    @asynccontextmanager
    async def doing(cluster: Cluster, target: int) -> Doing:
        await _tell(cluster, do)
        yield cluster.valkey.name
        while True:
            with contextlib.suppress(ProcessLookupError):
                await _tell(cluster, undo)
                return
            await asyncio.sleep(0.1)

    return doing


async def _tell(cluster: Cluster, command: str) -> None:
    """ProcessLookupError where the server does not answer."""
    try:
        reply = await asyncio.to_thread(cluster.valkey.command, *command.split())
    except OSError as error:
        raise ProcessLookupError from error
    if not reply.startswith("+OK"):
        raise ProcessLookupError(reply)


def _relayed(relays: str, do: str) -> Callable[[Cluster, int], AbstractAsyncContextManager[str]]:
    @asynccontextmanager
    async def doing(cluster: Cluster, target: int) -> Doing:
        found = cluster.client_relays if relays == "client" else [cluster.store_relay]
        relay = found[target % len(found)]
        if do == "slow":
            relay.delay = 0.05 + 0.25 * (target % 7) / 6
        else:
            getattr(relay, do)()
        yield f"{relays} relay"
        relay.heal()

    return doing


@contextlib.contextmanager
def _stopped(pid: int):
    """SIGSTOP, and SIGCONT to what is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


_DOINGS: dict[str, Callable[[Cluster, int], AbstractAsyncContextManager[str]]] = {
    "worker-kill": _worker_gets(signal.SIGKILL),
    "worker-term": _worker_gets(signal.SIGTERM),
    "worker-freeze": _worker_freeze,
    "raylet-freeze": _raylet_freeze,
    "node-kill": _node_kill,
    "node-partition": _node_partition,
    "coordinator-freeze": _coordinator_freeze,
    "coordinator-kill": _coordinator_gets(signal.SIGKILL),
    "coordinator-term": _coordinator_gets(signal.SIGTERM),
    "redis-kill": _redis_kill,
    "redis-freeze": _redis_freeze,
    "redis-full": _redis_told("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "redis-readonly": _redis_told("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "redis-slow": _relayed("store", "slow"),
    "redis-stall": _relayed("store", "stall"),
    "redis-cut": _relayed("store", "cut"),
    "client-slow": _relayed("client", "slow"),
    "client-stall": _relayed("client", "stall"),
    "client-cut": _relayed("client", "cut"),
}
