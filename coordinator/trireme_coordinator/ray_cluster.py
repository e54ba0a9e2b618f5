"""The one file that knows Ray: nodes, and one detached actor for each stage.

Ray places, starts and restarts the workers; frames do not pass through it. All methods block and are called from a
thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trireme_coordinator.config import split_address
from trireme_coordinator.metrics.ray_watch import RayState
from trireme_coordinator.node_health import answering
from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.ray_access import check_token
from trireme_proto.errors import ConfigurationError, PipelineUnavailable, StartupError, TriremeError
from trireme_worker.actor import StageProcess, StageSettings
from trireme_worker.probe import Measured, measure

log = logging.getLogger(__name__)
NAMESPACE = "trireme"
_OBJECT_STORE_BYTES = 80 << 20  # the least that Ray allows: weights are mapped from files, frames go over gRPC
_LOOPBACK = "127.0.0.1"
_ADOPT_SECONDS = 10
_MEASURE_SECONDS = 120  # the process starts and compiles two kernels first
_STARTS = 3
"""Of a cluster of our own: Ray gives a node 30 s to come up, whatever else the machine does."""
_LOOK_SECONDS = 0.5
_LOOKS = 4
"""Health checks that a node must all miss before a worker is given up that it starts."""
_FIRST_SIGN_SECONDS = 30
"""After which a process that was asked to start must have answered something, though it still loads."""
_LONGEST_SIGN_SECONDS = 120
"""The same, before any has started here: a busy machine takes its time. Each that is late doubles it for the next."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default Ray lets its workers step back behind everything else on the machine
    "AUTOSCALER_METRIC_PORT": "-1",  # else its monitor listens on all interfaces, where prometheus_client is installed
    # Notice a silent node after two seconds instead of fifteen.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}

Settings = Callable[[Placed, str], StageSettings]
"""Settings of a placed stage that is to listen on the given address."""


class RayCluster:
    """A connection to the Ray cluster at `address`, or, where that is empty, to one of our own that ends with us."""

    def __init__(self, address: str, deployment: str) -> None:
        self._address, self._deployment = address, deployment
        self._actors: dict[int, Any] = {}
        self._addresses: dict[int, str] = {}  # of those that serve
        self._sign_seconds = _LONGEST_SIGN_SECONDS
        self._generation = 0  # of launches; part of the actors' names
        self._starting = threading.Lock()
        self._folder = ""
        self._measured: dict[str, Measured] = {}

    def start(self) -> None:
        """Connects or starts. ConfigurationError when nothing answers at the address; StartupError when our own does
        not come up, of which nothing is left behind then.
        """
        if self._address:
            check_token(self._address, os.environ)
            _probe(self._address)
        else:  # nobody else may join a cluster of our own
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._address:
            self._connect(address=self._address)
            return
        for left in reversed(range(_STARTS)):
            self._folder = tempfile.mkdtemp(prefix="trireme-ray-")
            own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": self._folder}
            try:
                self._connect(address="local", **own)
            except StartupError as error:
                if not left:
                    raise
                log.warning("%s Trying again.", error)
            else:
                return

    def _connect(self, **options: Any) -> None:
        """ConfigurationError, StartupError, as `start`."""
        import ray  # noqa: PLC0415  (reads the environment when it is imported)

        others = ray.is_initialized()  # then what runs is not ours to stop
        try:
            with self._starting:
                ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # Ray raises bare Exceptions too, such as that its node timed out
            if not others:
                self.stop()
            raise _not_connected(self._address) from error

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
        named = self._named_stages()
        self._generation = max([self._generation, *(generation for _, generation, _ in named)])
        newest = {stage: name for stage, _, name in named if stage < stages}
        for name in {name for _, _, name in named} - set(newest.values()):
            _kill(name)
        self._actors = {stage: actor for stage, name in newest.items() if (actor := _find(name)) is not None}
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

    def stop(self) -> None:
        """Ends our actors, and the cluster where it is our own."""
        import ray  # noqa: PLC0415

        with self._starting:  # a start that is under way cannot be broken off, only waited for
            for actor in self._actors.values():
                ray.kill(actor, no_restart=True)
            self._actors.clear()
            self._addresses.clear()
            ray.shutdown()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)  # Ray would leave its logs and sockets behind

    def _create(self, stage: Placed, settings: Settings) -> Any:
        """A new actor, on its node and nowhere else."""
        import ray  # noqa: PLC0415
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        options = {
            "name": f"{self._deployment}-stage-{stage.stage}-{self._generation}",  # an old one may be frozen, not gone
            "lifetime": "detached",
            "num_cpus": 0,  # placed by us, by bytes; Ray's count of CPUs would only refuse small machines
            "max_restarts": 0,  # a lost stage is ours to restart, and not always where it was
            "max_task_retries": 0,
            "max_concurrency": 2,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(stage.node.node_id, soft=False),
        }
        host = stage.node.address if self._address else _LOOPBACK
        try:
            return ray.remote(StageProcess).options(**options).remote(settings(stage, host))
        except ValueError as error:  # the name is taken
            raise PipelineUnavailable("Another coordinator starts this worker.") from error

    def _remove_orphans(self) -> None:
        """Ends stages of an earlier coordinator of this name that nobody drives any more."""
        for _, _, name in self._named_stages():
            self._remove_orphan(name)

    def _named_stages(self) -> list[tuple[int, int, str]]:
        """(stage, generation, name) of this deployment's actors, in this order."""
        from ray.util import list_named_actors  # noqa: PLC0415

        form = re.compile(rf"{re.escape(self._deployment)}-stage-(\d+)-(\d+)")
        found = [(form.fullmatch(name), name) for name in list_named_actors()]
        return sorted((int(match[1]), int(match[2]), name) for match, name in found if match is not None)

    def _remove_orphan(self, name: str) -> None:
        import ray  # noqa: PLC0415

        if (orphan := _find(name)) is None:
            return
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(orphan.attached.remote(), timeout=10):
                raise ConfigurationError(
                    f"A deployment named '{self._deployment}' runs on this Ray cluster already; choose another --name."
                )
        _end_actor(name)


def _not_connected(address: str) -> TriremeError:
    if address:
        return ConfigurationError(f"No Ray cluster answers at '{address}'.")
    return StartupError(
        "Ray did not start on this machine: it may be overloaded, or short of memory, /dev/shm or disk."
    )


def _probe(address: str) -> None:
    """Ray itself tries for minutes to reach an address where nothing is."""
    try:
        with socket.create_connection(split_address(address), timeout=5):
            pass
    except OSError as error:
        raise ConfigurationError(f"No Ray cluster answers at '{address}'.") from error


def _find(name: str) -> Any:
    """The actor, None where it has ended."""
    import ray  # noqa: PLC0415

    with contextlib.suppress(ValueError):
        return ray.get_actor(name)
    return None


def _kill(name: str) -> None:
    import ray  # noqa: PLC0415

    if (actor := _find(name)) is not None:
        ray.kill(actor, no_restart=True)


def _end_actor(name: str) -> None:
    _kill(name)
    _wait_until_gone(name)


def _wait_until_gone(name: str) -> None:
    deadline = time.monotonic() + 10
    while _find(name) is not None:
        if time.monotonic() > deadline:
            raise PipelineUnavailable("An old worker does not end.")
        time.sleep(0.05)


def _cause(error: Any) -> TriremeError:
    """The typed error that a worker raised, else a general one."""
    return error.cause if isinstance(error.cause, TriremeError) else PipelineUnavailable("A worker failed to start.")
