"""Internal socket on all interfaces (CVE-2025-30202), open Ray (CVE-2023-48022, CVE-2026-27482, CVE-2025-62593): a
`trireme serve` with all its processes listens on loopback alone but where it was told to, and its Ray knows no
dashboard, no jobs and nobody without the token.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from trireme_worker.stage_links import is_loopback

ROOT = Path(__file__).parents[2]
START_SECONDS = 240
STAGES = 2
JOBS_PORT = 8265
DRIVER = "the driver"
RAYS_OWN = {
    "gcs_server": 1,  # the directory of the cluster
    "raylet": 2,  # the manager of the node, and that of its objects
    "ray::StageProce": 1,  # the core in each worker, beside our port, which is on loopback
    DRIVER: 1,  # the same core in `serve` itself
    "ray::RuntimeEnv": 1,  # the agent for environments, on the node's address; it alone speaks HTTP
}
"""The programs that listen beyond loopback, and on how many ports each process of theirs does. All are Ray's: an agent,
and servers in C++ that bind all addresses whatever they are told. What keeps others out is the cluster's token.
"""
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.ObjectManagerService/Pull",
)
"""Of each of those servers, one that tells or does something."""
HARMLESS = METHODS[0]
"""Tells the owner of the token which nodes there are."""


@dataclass(frozen=True)
class Listener:
    """A TCP socket that waits for connections. `program`: as Linux cuts it; `host`: IPv4, though gRPC's sockets are of
    IPv6 and say ::ffff:127.0.0.1.
    """

    pid: int
    program: str
    command: str
    host: str
    port: int


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[psutil.Process, str]]:
    """The process, and where it says that it listens. Ray gives up after 30 s on a busy machine: three attempts."""
    for _ in range(3):
        process = _started()
        try:
            assert process.stdout is not None
            if line := process.stdout.readline():
                assert line.startswith("Trireme is ready on "), line
                yield psutil.Process(process.pid), line.split()[4]
                return
        finally:
            process.terminate()
            process.communicate(timeout=60)
    pytest.fail("the server did not start")


def _started() -> subprocess.Popen[str]:
    folders = [str(ROOT / name) for name in ("proto", "kernels", "worker", "coordinator", "clients")]
    code = "from trireme_coordinator.commands import serve; import typer; typer.run(serve)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", code, "--stages", str(STAGES), "--listen", "127.0.0.1:0"],
        env=environment | {"PYTHONPATH": os.pathsep.join(folders)},
        stdout=subprocess.PIPE,
        text=True,
    )


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def listeners(process: psutil.Process) -> list[Listener]:
    found = []
    for each in family(process):
        try:
            sockets, name, command = each.net_connections(kind="tcp"), each.name()[:15], " ".join(each.cmdline())
        except psutil.NoSuchProcess:
            continue
        program = DRIVER if each == process else name
        ends = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN]
        found += [Listener(each.pid, program, command, end.ip.removeprefix("::ffff:"), end.port) for end in ends]
    return found


def beyond_loopback(found: list[Listener]) -> list[Listener]:
    return [each for each in found if not is_loopback(each.host)]


def unexpected(found: list[Listener]) -> list[Listener]:
    """All that a process has open beyond loopback, where that is more than RAYS_OWN says."""
    opened = beyond_loopback(found)
    ports = Counter((each.pid, each.program) for each in opened)
    return [each for each in opened if ports[each.pid, each.program] > RAYS_OWN.get(each.program, 0)]


@pytest.mark.timeout(START_SECONDS + 60)
def test_listeners_beyond_loopback_are_rays_and_no_other(served: tuple[psutil.Process, str]) -> None:
    process, address = served
    found = listeners(process)
    assert unexpected(found) == []
    ours = [each for each in found if is_loopback(each.host)]
    assert address in {f"{each.host}:{each.port}" for each in ours}
    assert sum(each.program == "ray::StageProce" for each in ours) == STAGES
    assert len(ours) == 1 + STAGES


@pytest.mark.parametrize(("host", "seen"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("::1", False)])
def test_one_port_more_would_be_noticed(host: str, seen: bool) -> None:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=kind) as one, socket.create_server((host, 0), family=kind) as two:
        own = [each for each in listeners(psutil.Process()) if each.pid == os.getpid()]
        assert {one.getsockname()[1], two.getsockname()[1]} <= {each.port for each in own}
        assert {each.port for each in unexpected(own)} >= {two.getsockname()[1]} if seen else unexpected(own) == []


@pytest.mark.timeout(START_SECONDS + 60)
def test_what_ray_opens_wants_its_token(served: tuple[psutil.Process, str]) -> None:
    """Each such port, asked without a token and with a wrong one, for what its program can do."""
    opened = beyond_loopback(listeners(served[0]))
    assert {each.program for each in opened} == set(RAYS_OWN), "Ray opens fewer ports now: RAYS_OWN says too many"
    for each in opened:
        assert said_to_a_browser(each) in {0, 401}, each
        for token in ("", "0" * 64):
            codes = {asked(each, method, token) for method in METHODS}
            refused = grpc.StatusCode.UNAVAILABLE if said_to_a_browser(each) else grpc.StatusCode.UNAUTHENTICATED
            assert refused in codes, each
            assert codes <= {refused, grpc.StatusCode.UNIMPLEMENTED}, each


@pytest.mark.timeout(START_SECONDS + 60)
def test_with_the_token_ray_answers_the_same_question(served: tuple[psutil.Process, str]) -> None:
    """So that the refusals above are the token's doing, and no mistake in the question."""
    directory = next(each for each in listeners(served[0]) if each.program == "gcs_server")
    token = psutil.Process(directory.pid).environ()["RAY_AUTH_TOKEN"]
    assert asked(directory, HARMLESS, token) == grpc.StatusCode.OK


@pytest.mark.timeout(START_SECONDS + 60)
def test_there_is_no_dashboard_and_no_job_server(served: tuple[psutil.Process, str]) -> None:
    for each in listeners(served[0]):
        assert "dashboard.py" not in each.command, each
        assert each.port != JOBS_PORT, each


def asked(listener: Listener, method: str, token: str) -> grpc.StatusCode:
    """What a method answers to an empty request."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(reached(listener), [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method, bytes, bytes)(b"", timeout=5, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined,no-any-return]
    return grpc.StatusCode.OK


def said_to_a_browser(listener: Listener) -> int:
    """The status of its answer; 0 where it does not speak HTTP/1."""
    host, _, port = reached(listener).rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/api/version")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def reached(listener: Listener) -> str:
    return f"{'127.0.0.1' if listener.host in {'::', '0.0.0.0'} else listener.host}:{listener.port}"
