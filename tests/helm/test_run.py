"""The laptop's manifests run for real: session store, Ray head, two workers, coordinator, and the chart's own test.

Also `make helm-run`. Takes half a minute: Ray starts four nodes.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.helm import kubectl
from tests.helm.release import Release, running
from tests.helm.rendering import texts, values_of

from trireme import Client
from trireme_proto.errors import Unauthenticated

MIB = 1 << 20
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """All pods but the test's, running."""
    with running(values_of("laptop")) as started:
        yield started


def test_where_one_pod_fails_the_others_are_stopped_and_nothing_is_left() -> None:
    """The head, which takes longer to start than the store to fail three times, is not waited for."""
    before = psutil.Process().children(recursive=True)
    with pytest.raises(RuntimeError, match="trireme-redis-0: redis does not start"):  # noqa: SIM117
        with running(values_of("laptop"), {"valkey-server": Path("/bin/false")}):
            pytest.fail("a release without its store is not up")
    assert psutil.Process().children(recursive=True) == before


def test_the_charts_own_test_gets_its_tokens(release: Release) -> None:
    pod = release.pods["trireme-test"]
    assert pod.run(pod.template.container("generate")) == 0, pod.log("generate")
    assert "8 tokens" in pod.log("generate")


def status(release: Release) -> dict[str, object]:
    done = subprocess.run(
        ["trireme", "status", "--json"],
        env=release.client_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
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


def test_a_token_by_the_commands_of_the_notes(release: Release, tmp_path: Path) -> None:
    """All of "Ask it from your own machine", as one reads it there; kubectl is a stand-in that knows the release."""
    section = texts(values_of("laptop"))["trireme/templates/NOTES.txt"].partition("from your own machine:")[2]
    printed = [line.strip() for line in section.strip().partition("\n\n")[0].splitlines()]
    assert [line.split()[0] for line in printed] == ["kubectl", "kubectl", "kubectl", "sleep", "trireme", "trireme"]
    port = release.network.free_port()  # 50051 may be somebody else's here
    script = "\n".join(printed).replace("50051:", f"{port}:").replace("localhost:50051", f"localhost:{port}")
    environment = kubectl.installed(tmp_path, release.network.manifests, release.client_environment()["TRIREME_TARGET"])
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{script}\nkill %1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "60 tokens" in done.stdout + done.stderr


def test_nobody_comes_in_without_a_key_or_without_tls(release: Release) -> None:
    given = release.client_environment()
    with Client(given["TRIREME_TARGET"], ca=given["TRIREME_CA"], api_key="", timeout=20) as client:  # noqa: SIM117
        with pytest.raises(Unauthenticated):
            client.generate("Once", max_tokens=2).result()
    plain = {name: value for name, value in given.items() if name != "TRIREME_CA"}
    done = subprocess.run(
        ["trireme", "generate", "Once", "--max-tokens", "2", "--timeout", "5"],
        env=plain, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def answer(release: Release) -> list[int]:
    given = release.client_environment()
    with Client(
        given["TRIREME_TARGET"], ca=given["TRIREME_CA"], api_key=given["TRIREME_API_KEY"], timeout=60
    ) as client:
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


def test_compiled_kernels_are_kept_in_a_folder_of_our_own(release: Release) -> None:
    kernels = release.pods["trireme-worker-0"].folder / "cache" / "kernels"
    assert kernels.stat().st_mode & 0o777 == 0o700
    assert any(kernels.iterdir())
    assert kernels.stat().st_uid == os.geteuid()
