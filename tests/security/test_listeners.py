"""Internal socket on all interfaces (CVE-2025-30202), open Ray (CVE-2023-48022, CVE-2026-27482, CVE-2025-62593): a
`trireme serve` with all its processes listens on loopback alone but where it was told to, and its Ray knows no
dashboard, no jobs and nobody without the token.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from trireme_worker.stage_links import is_loopback

ROOT = Path(__file__).parents[2]
START_SECONDS = 240
JOBS_PORT = 8265
RAYS_OWN: dict[str, str] = {
    "gcs_server": "Ray's servers in C++ bind all addresses; every call needs the cluster's token",
    "raylet": "the same",
    "ray::StageProcess": "the same, in the core of each worker",
    "ray::StageProces": "the same, as Linux cuts the name",
    "python": "the same, in the core of the coordinator, which is a driver",
    "ray::DashboardAgent": "Ray's agent of the node: binds the node's address, wants the token",
    "ray::DashboardA": "the same, as Linux cuts the name",
    "ray::RuntimeEnvAgent": "the same, for environments of workers",
    "ray::RuntimeEnv": "the same, as Linux cuts the name",
}
"""Programs that listen beyond loopback, and why they may."""
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.CoreWorkerService/PushTask",
)


@dataclass(frozen=True)
class Listener:
    """A TCP socket that waits for connections."""

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
        [sys.executable, "-c", code, "--stages", "2", "--listen", "127.0.0.1:0"],
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
            sockets, name, command = each.net_connections(kind="tcp"), each.name(), " ".join(each.cmdline())
        except psutil.NoSuchProcess:
            continue
        found += [Listener(name, command, s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN]
    return found


@pytest.mark.timeout(START_SECONDS + 60)
def test_listeners_beyond_loopback_are_rays_and_no_other(served: tuple[psutil.Process, str]) -> None:
    process, address = served
    found = listeners(process)
    open_ones = [each for each in found if not is_loopback(each.host)]
    assert {each.program for each in open_ones} <= set(RAYS_OWN), open_ones
    ours = [each for each in found if each not in open_ones]
    assert address in {f"{each.host}:{each.port}" for each in ours}
    assert sum(each.program.startswith("ray::StageProces") for each in ours) >= 2  # a port of each stage


@pytest.mark.timeout(START_SECONDS + 60)
def test_what_ray_opens_wants_its_token(served: tuple[psutil.Process, str]) -> None:
    """Each such port, asked without a token and with a wrong one, for what its program can do."""
    open_ones = [each for each in listeners(served[0]) if not is_loopback(each.host)]
    assert open_ones, "Ray opens no port beyond loopback any more: drop RAYS_OWN"
    for each in open_ones:
        for token in ((), (("authorization", f"Bearer {'0' * 64}"),)):
            codes = {asked(each, method, token) for method in METHODS}
            assert grpc.StatusCode.OK not in codes, each
        assert said_to_a_browser(each) not in range(200, 300), each


@pytest.mark.timeout(START_SECONDS + 60)
def test_there_is_no_dashboard_and_no_job_server(served: tuple[psutil.Process, str]) -> None:
    for each in listeners(served[0]):
        assert "dashboard.py" not in each.command or "--modules-to-load=UsageStatsHead" in each.command, each
        assert each.port != JOBS_PORT, each


def asked(listener: Listener, method: str, token: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    """What a method answers to an empty request."""
    with grpc.insecure_channel(reached(listener), [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method, bytes, bytes)(b"", timeout=5, metadata=token)
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
