"""A release as in production, run for real: two coordinators, a Ray head, three workers, Redis with TLS and one user.

Every key, certificate, config map and command is what the chart renders. Redis is Debian's; where that cannot be had,
the wheel's Valkey without TLS. Takes a minute.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helm import debian_redis
from tests.helm.release import Release, running
from tests.helm.rendering import values_of

from trireme import Client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
PROMPT = "Once upon a time, there was"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path] | None:
    return debian_redis.programs(tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="module")
def release(programs: dict[str, Path] | None) -> Iterator[Release]:
    values: dict[str, Any] = values_of("laptop")
    values["workers"] |= {"replicas": 3}
    values["coordinator"] |= {"replicas": 2}
    if programs:
        values["redis"] = {"embedded": {"tls": True, "image": {"repository": "redis", "tag": "7"}}}
    with running(values, programs) as started:
        yield started


def client(release: Release) -> Client:
    given = release.client_environment()
    return Client(given["TRIREME_TARGET"], ca=given["TRIREME_CA"], api_key=given["TRIREME_API_KEY"], timeout=60)


def answer(release: Release) -> list[int]:
    with client(release) as opened:
        return list(opened.generate(PROMPT, max_tokens=12, seed=7).result().token_ids)


def test_the_charts_own_test_gets_its_tokens_through_three_stages(release: Release) -> None:
    pod = release.pods["trireme-test"]
    assert pod.run(pod.template.container("generate")) == 0, pod.log("generate")
    with client(release) as opened:
        status = opened.status()
    assert {stage.node for stage in status.stages} == {f"trireme-worker-{i}" for i in range(3)}
    assert status.session_store_ok


def test_one_coordinator_is_ready_and_the_other_is_alive(release: Release) -> None:
    both = [pod for pod in release.pods.values() if pod.template.component == "coordinator"]
    container = both[0].template.container("coordinator")
    assert sorted(pod.ready(container, "readinessProbe") for pod in both) == [False, True]
    assert all(pod.ready(container, "livenessProbe") for pod in both)


def test_metrics_are_served_by_both(release: Release) -> None:
    for pod in release.pods.values():
        if pod.template.component == "coordinator":
            with urllib.request.urlopen(f"http://{pod.address}:{pod.ports[9464]}/metrics", timeout=10) as found:
                lines = found.read().decode().splitlines()
            leading = float(next(line for line in lines if line.startswith("trireme_leading")).split()[-1])
            assert bool(leading) == pod.leads()


def test_redis_speaks_tls_alone_and_its_user_may_do_only_what_we_need(
    release: Release, programs: dict[str, Path] | None
) -> None:
    if not programs:
        pytest.skip("no redis-server with TLS here")
    pod = release.pods["trireme-redis-0"]
    container = pod.template.container("redis")
    with socket.create_connection((pod.address, pod.ports[6379]), timeout=5) as plain:
        plain.sendall(b"PING\r\n")
        with contextlib.suppress(ConnectionResetError):  # it may hang up instead of speaking TLS's alert
            assert b"PONG" not in plain.recv(64)
    assert pod.ready(container, "readinessProbe")
    environment = pod.environment(container)
    tls = ["--tls", "--cacert", f"{environment['REDIS_TLS']}/ca.crt", "--user", "trireme", "--no-auth-warning"]
    done = subprocess.run(
        [programs["redis-cli"], "-p", str(pod.ports[6379]), *tls, "FLUSHALL"],
        env=environment | {"REDISCLI_AUTH": environment["REDIS_PASSWORD"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "NOPERM" in done.stdout + done.stderr


def test_stages_speak_to_nobody_without_their_certificate(release: Release) -> None:
    """Whatever a stage's process listens on for others wants TLS, with a certificate of the stages' authority."""
    worker = release.pods["trireme-worker-0"]
    (stage,) = worker.processes("ray-worker", "ray::StageProcess")
    listening = [c.laddr for c in stage.net_connections("tcp") if c.status == "LISTEN"]
    # gRPC's sockets are those of IPv6, also for an address of IPv4.
    (port,) = {at.port for at in listening if at.ip.removeprefix("::ffff:") == worker.address}
    folder = release.leader().folder / "stage-tls"
    strangers = ssl.create_default_context(cafile=folder / "ca.crt")
    ours = ssl.create_default_context(cafile=folder / "ca.crt")
    ours.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    assert speaks(worker.address, port, ours)
    assert not speaks(worker.address, port, strangers)


def speaks(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Whether the server there answers HTTP/2's beginning through TLS."""
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="trireme-stage") as secure,
        ):
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            return bool(secure.recv(9))
    except (ssl.SSLError, ConnectionError):
        return False


def test_the_other_coordinator_takes_over_with_the_same_answer(release: Release) -> None:
    before, first = answer(release), release.leader()
    first.stop()
    try:
        assert release.leader() is not first
        assert answer(release) == before
    finally:
        first.start(ready=False)  # as its Deployment would
