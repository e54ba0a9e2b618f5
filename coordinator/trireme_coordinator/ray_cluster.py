"""Nodes of a Ray cluster, and one detached actor for each stage. With its neighbours ray_*.py all that knows Ray.

Ray places, starts and restarts the workers; frames do not pass through it. All methods block and are called from a
thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trireme_coordinator.metrics.ray_watch import RayState
from trireme_coordinator.node_health import answering
from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.ray_actors import actor_name, end_actor, find_actor, kill_actor, named_stages
from trireme_coordinator.ray_connection import RayConnection
from trireme_proto.errors import ConfigurationError, PipelineUnavailable, TriremeError
from trireme_worker.actor import StageProcess, StageSettings
from trireme_worker.probe import Measured, measure

_LOOPBACK = "127.0.0.1"
_ADOPT_SECONDS = 10
_MEASURE_SECONDS = 120  # the process starts and compiles two kernels first
_LOOK_SECONDS = 0.5
_LOOKS = 4
"""Health checks that a node must all miss before a worker is given up that it starts."""
_FIRST_SIGN_SECONDS = 30
"""After which a process that was asked to start must have answered something, though it still loads."""
_LONGEST_SIGN_SECONDS = 120
"""The same, before any has started here: a busy machine takes its time. Each that is late doubles it for the next."""

Settings = Callable[[Placed, str], StageSettings]
"""Settings of a placed stage that is to listen on the given address."""


class RayCluster:
    """A connection to the Ray cluster at `address`, or, where that is empty, to one of our own that ends with us."""

    def __init__(self, address: str, deployment: str) -> None:
        self._connection = RayConnection(address)
        self._host = "" if address else _LOOPBACK
        self._deployment = deployment
        self._actors: dict[int, Any] = {}
        self._addresses: dict[int, str] = {}  # of those that serve
        self._sign_seconds = _LONGEST_SIGN_SECONDS
        self._generation = 0  # of launches; part of the actors' names
        self._measured: dict[str, Measured] = {}

    def start(self) -> None:
        """Connects or starts. ConfigurationError, StartupError, as `RayConnection.open`."""
        self._connection.open()

    def stop(self) -> None:
        """Ends our actors, and the cluster where it is our own."""
        with self._connection.closing():
            self.end()

    def nodes(self) -> list[Node]:
        """The nodes that are alive and may take stages: one started with --num-cpus=0 takes none."""
        import ray  # noqa: PLC0415

        return [
            Node(
                node["NodeID"],
                node["NodeName"],
                node["NodeManagerAddress"],
                node["NodeManagerHostname"],
                int(node["Resources"].get("memory", 0)),
            )
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) > 0
        ]

    def measure(self, nodes: Sequence[Node], threads: int) -> dict[str, Measured]:
        """What each node can do on so many threads, by node id; takes seconds, once. PipelineUnavailable.

        Each machine is measured once: side by side, nodes on it would take it from each other.
        """
        import ray  # noqa: PLC0415
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        machines = {node.host: node.node_id for node in nodes if node.node_id not in self._measured}
        calls = [
            ray.remote(measure)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
            .remote(threads)
            for node_id in machines.values()
        ]
        try:
            found = dict(zip(machines, ray.get(calls, timeout=_MEASURE_SECONDS), strict=True))
        except ray.exceptions.RayError as error:
            raise PipelineUnavailable("The nodes could not be measured.") from error
        self._measured |= {node.node_id: found[node.host] for node in nodes if node.host in found}
        return {node.node_id: self._measured[node.node_id] for node in nodes}

    def state(self) -> RayState:
        """Nodes and resources, for the metrics."""
        import ray  # noqa: PLC0415

        nodes = ray.nodes()
        return RayState(
            alive={node["NodeName"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]},
            dead=sum(not node["Alive"] for node in nodes),
            total=ray.cluster_resources(),
            available=ray.available_resources(),
        )

    def living(self) -> list[Node]:
        """Those of `nodes` that answer right now: Ray itself notices only seconds later that one does not."""
        import ray  # noqa: PLC0415

        ports = {node["NodeID"]: f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" for node in ray.nodes()}
        nodes = self.nodes()
        answer = answering([ports[node.node_id] for node in nodes])
        return [node for node, answers in zip(nodes, answer, strict=True) if answers]

    def missing(self, placed: Sequence[Placed]) -> list[int]:
        """The stages without a process."""
        return [stage.stage for stage in placed if stage.stage not in self._actors]

    def launch(self, placed: Sequence[Placed], settings: Settings) -> list[str]:
        """Starts the stages that do not run yet, all at once; addresses in pipeline order once all of them serve."""
        if not self._generation:
            self._remove_orphans()
        self._generation += 1
        for stage in placed:
            if stage.stage not in self._actors:
                self._actors[stage.stage] = self._create(stage, settings)
        self._started([stage for stage in placed if stage.stage not in self._addresses])
        return [self._addresses[stage.stage] for stage in placed]

    def discard(self, stages: Iterable[int]) -> None:
        """Puts an end to the processes of these stages, as soon as their nodes can, and forgets them."""
        import ray  # noqa: PLC0415

        for stage in stages:
            self._addresses.pop(stage, None)
            if (actor := self._actors.pop(stage, None)) is not None:
                ray.kill(actor, no_restart=True)

    def _started(self, starting: Sequence[Placed]) -> None:
        """Waits until these stages serve. One that fails is forgotten, so that it gets a new process."""
        import ray  # noqa: PLC0415

        calls = {self._actors[stage.stage].start.remote(): stage for stage in starting}
        alive = {stage.stage: self._actors[stage.stage].attached.remote() for stage in starting}
        deadline = time.monotonic() + self._sign_seconds
        while calls:
            done, _ = ray.wait(list(calls), timeout=_LOOK_SECONDS)
            for call in done:
                self._take(calls.pop(call), call)
            if not done:
                first = time.monotonic() < deadline
                self._check(list(calls.values()), {} if first else alive)

    def _take(self, stage: Placed, call: Any) -> None:
        import ray  # noqa: PLC0415

        try:
            self._addresses[stage.stage] = str(ray.get(call))
            self._sign_seconds = _FIRST_SIGN_SECONDS
        except ray.exceptions.RayTaskError as error:
            self.discard([stage.stage])
            raise _cause(error) from error
        except ray.exceptions.RayActorError as error:
            self.discard([stage.stage])
            raise PipelineUnavailable("A worker is not there yet.") from error

    def adopt(self, stages: int) -> dict[int, StageSettings]:
        """Takes over the workers that an earlier coordinator of this name left, weights and all: what each was told, by
        stage. Of several generations of a stage the last one counts; others are ended, as are those that do not answer.
        """
        import ray  # noqa: PLC0415

        self.disown()
        named = named_stages(self._deployment)
        self._generation = max([self._generation, *(generation for _, generation, _ in named)])
        newest = {stage: name for stage, _, name in named if stage < stages}
        for name in {name for _, _, name in named} - set(newest.values()):
            kill_actor(name)
        self._actors = {stage: actor for stage, name in newest.items() if (actor := find_actor(name)) is not None}
        calls = {stage: actor.settings.remote() for stage, actor in self._actors.items()}
        told: dict[int, StageSettings] = {}
        if calls:
            ray.wait(list(calls.values()), num_returns=len(calls), timeout=_ADOPT_SECONDS)
        for stage, call in calls.items():
            with contextlib.suppress(ray.exceptions.RayError):  # it is ending, or frozen
                told[stage] = ray.get(call, timeout=0)
        self.discard(set(calls) - set(told))
        if told:
            self._sign_seconds = _FIRST_SIGN_SECONDS
        return told

    @property
    def address(self) -> str:
        """HOST:PORT at which other drivers reach the cluster."""
        import ray  # noqa: PLC0415

        return str(ray.get_runtime_context().gcs_address)

    def disown(self) -> None:
        """Leaves the workers to another coordinator: they are not ours to end any more."""
        self._actors.clear()
        self._addresses.clear()

    def end(self) -> None:
        """Ends all of our workers."""
        self.discard(list(self._actors))

    def _check(self, starting: Sequence[Placed], signs: Mapping[int, Any]) -> None:
        """PipelineUnavailable where the node of a starting stage is gone or frozen, or its process, which should have
        given its sign by now.
        """
        import ray  # noqa: PLC0415

        living = {node.node_id for _ in range(_LOOKS) for node in self.living()}  # a full machine may be slow once
        lost = [s.stage for s in starting if s.node.node_id not in living]
        late = [s.stage for s in starting if s.stage in signs and not ray.wait([signs[s.stage]], timeout=0)[0]]
        if late:
            self._sign_seconds = min(2 * self._sign_seconds, _LONGEST_SIGN_SECONDS)
        if lost := lost + late:
            self.discard(lost)
            raise PipelineUnavailable("A node went silent while it started a worker.")

    def _create(self, stage: Placed, settings: Settings) -> Any:
        """A new actor, on its node and nowhere else."""
        import ray  # noqa: PLC0415
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        options = {
            "name": actor_name(self._deployment, stage.stage, self._generation),
            "lifetime": "detached",
            "num_cpus": 0,  # placed by us, by bytes; Ray's count of CPUs would only refuse small machines
            "max_restarts": 0,  # a lost stage is ours to restart, and not always where it was
            "max_task_retries": 0,
            "max_concurrency": 2,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(stage.node.node_id, soft=False),
        }
        host = self._host or stage.node.address
        try:
            return ray.remote(StageProcess).options(**options).remote(settings(stage, host))
        except ValueError as error:  # the name is taken
            raise PipelineUnavailable("Another coordinator starts this worker.") from error

    def _remove_orphans(self) -> None:
        """Ends stages of an earlier coordinator of this name that nobody drives any more."""
        for _, _, name in named_stages(self._deployment):
            self._remove_orphan(name)

    def _remove_orphan(self, name: str) -> None:
        import ray  # noqa: PLC0415

        if (orphan := find_actor(name)) is None:
            return
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(orphan.attached.remote(), timeout=10):
                raise ConfigurationError(
                    f"A deployment named '{self._deployment}' runs on this Ray cluster already; choose another --name."
                )
        end_actor(name)


def _cause(error: Any) -> TriremeError:
    """The typed error that a worker raised, else a general one."""
    return error.cause if isinstance(error.cause, TriremeError) else PipelineUnavailable("A worker failed to start.")
