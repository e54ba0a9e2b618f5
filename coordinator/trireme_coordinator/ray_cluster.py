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
from collections.abc import Callable, Sequence
from typing import Any

from trireme_coordinator.config import split_address
from trireme_coordinator.placement import Node, Placed
from trireme_proto.errors import ConfigurationError, PipelineUnavailable, TriremeError
from trireme_worker.actor import StageProcess, StageSettings
from trireme_worker.probe import Measured, measure

log = logging.getLogger(__name__)
NAMESPACE = "trireme"
_OBJECT_STORE_BYTES = 80 << 20  # the least that Ray allows: weights are mapped from files, frames go over gRPC
_LOOPBACK = "127.0.0.1"
_ADOPT_SECONDS = 10
_MEASURE_SECONDS = 120  # the process starts and compiles two kernels first
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default Ray lets its workers step back behind everything else on the machine
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
        self._starting = threading.Lock()
        self._folder = ""
        self._measured: dict[str, Measured] = {}

    def start(self) -> None:
        """Connects or starts. ConfigurationError when nothing answers at the address."""
        if self._address:
            _probe(self._address)
        else:  # nobody else may join a cluster of our own
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray  # noqa: PLC0415  (reads the environment when it is imported)

        options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
        if self._address:
            options["address"] = self._address
        else:
            self._folder = tempfile.mkdtemp(prefix="trireme-ray-")
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            options["_temp_dir"] = self._folder
        try:
            with self._starting:
                ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"No Ray cluster answers at '{self._address}'.") from error

    def nodes(self) -> list[Node]:
        """The nodes that are alive and may take stages: one started with --num-cpus=0 takes none."""
        import ray  # noqa: PLC0415

        return [
            Node(node["NodeID"], node["NodeName"], node["NodeManagerAddress"], node["NodeManagerHostname"])
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

    def launch(self, placed: Sequence[Placed], settings: Settings) -> list[str]:
        """Starts the stages that do not run yet, all at once; addresses in pipeline order once all of them serve."""
        import ray  # noqa: PLC0415

        if not self._actors:
            self._remove_orphans()
        for stage in placed:
            if stage.stage not in self._actors:
                self._actors[stage.stage] = self._create(stage, settings)
        calls = [self._actors[stage.stage].start.remote() for stage in placed]
        try:
            return [str(address) for address in ray.get(calls)]
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except ray.exceptions.RayActorError as error:  # being restarted: the caller tries again
            raise PipelineUnavailable("A worker is not there yet.") from error

    def adopt(self, stages: int) -> list[StageSettings] | None:
        """Takes over the workers that an earlier coordinator of this name left, weights and all; what they were told,
        in pipeline order. None where they are not exactly `stages`, or do not answer: those that are left are ended.
        """
        import ray  # noqa: PLC0415

        found = self._named_stages()
        try:
            if set(found) == set(range(stages)):
                actors = {number: ray.get_actor(found[number]) for number in found}
                calls = [actors[number].settings.remote() for number in range(stages)]
                told: list[StageSettings] = ray.get(calls, timeout=_ADOPT_SECONDS)
                self._actors = actors
                return told
        except (ray.exceptions.RayError, ValueError):
            log.warning("the workers of the coordinator before do not answer; they are replaced")
        self.disown()
        for name in found.values():
            _end_actor(name)
        return None

    @property
    def address(self) -> str:
        """HOST:PORT at which other drivers reach the cluster."""
        import ray  # noqa: PLC0415

        return str(ray.get_runtime_context().gcs_address)

    def disown(self) -> None:
        """Leaves the workers to another coordinator: they are not ours to end any more."""
        self._actors.clear()

    def discard(self) -> None:
        """Ends our workers."""
        import ray  # noqa: PLC0415

        for number, actor in self._actors.items():
            ray.kill(actor, no_restart=True)
            _wait_until_gone(f"{self._deployment}-stage-{number}")
        self._actors.clear()

    def stop(self) -> None:
        """Ends our actors, and the cluster where it is our own."""
        import ray  # noqa: PLC0415

        with self._starting:  # a start that is under way cannot be broken off, only waited for
            for actor in self._actors.values():
                ray.kill(actor, no_restart=True)
            self._actors.clear()
            ray.shutdown()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)  # Ray would leave its logs and sockets behind

    def _create(self, stage: Placed, settings: Settings) -> Any:
        """A new actor, on its node and nowhere else."""
        import ray  # noqa: PLC0415
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        options = {
            "name": f"{self._deployment}-stage-{stage.stage}",
            "lifetime": "detached",
            "num_cpus": 0,  # placed by us, by bytes; Ray's count of CPUs would only refuse small machines
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": 2,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(stage.node.node_id, soft=False),
        }
        host = stage.node.address if self._address else _LOOPBACK
        return ray.remote(StageProcess).options(**options).remote(settings(stage, host))

    def _remove_orphans(self) -> None:
        """Ends stages of an earlier coordinator of this name that nobody drives any more."""
        for name in self._named_stages().values():
            self._remove_orphan(name)

    def _named_stages(self) -> dict[int, str]:
        """Names of the actors of this deployment, by stage."""
        from ray.util import list_named_actors  # noqa: PLC0415

        form = re.compile(rf"{re.escape(self._deployment)}-stage-(\d+)")
        return {int(found[1]): name for name in list_named_actors() if (found := form.fullmatch(name))}

    def _remove_orphan(self, name: str) -> None:
        import ray  # noqa: PLC0415

        try:
            orphan = ray.get_actor(name)
        except ValueError:
            return
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(orphan.attached.remote(), timeout=10):
                raise ConfigurationError(
                    f"A deployment named '{self._deployment}' runs on this Ray cluster already; choose another --name."
                )
        _end_actor(name)


def _probe(address: str) -> None:
    """Ray itself tries for minutes to reach an address where nothing is."""
    try:
        with socket.create_connection(split_address(address), timeout=5):
            pass
    except OSError as error:
        raise ConfigurationError(f"No Ray cluster answers at '{address}'.") from error


def _end_actor(name: str) -> None:
    import ray  # noqa: PLC0415

    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(name), no_restart=True)
        _wait_until_gone(name)


def _wait_until_gone(name: str) -> None:
    import ray  # noqa: PLC0415

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name)
        except ValueError:
            return
        time.sleep(0.05)
    raise PipelineUnavailable("An old worker does not end.")


def _cause(error: Any) -> TriremeError:
    """The typed error that a worker raised, else a general one."""
    return error.cause if isinstance(error.cause, TriremeError) else PipelineUnavailable("A worker failed to start.")
