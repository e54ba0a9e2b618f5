"""A cluster comes up on three hosts over SSH, answers, is repaired, changed and taken down. Also `make hosts`.

Real SSH servers, Ray nodes, stages and coordinator; a minute on a quiet machine, so not part of `make test`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.ports import free_port
from tests.support.ssh_hosts import Hosts, needs_ssh, ssh_hosts

from trireme import AsyncClient

pytestmark = [needs_ssh, pytest.mark.cluster, pytest.mark.timeout(600)]
KERNELS = {"TRIREME_CACHE_DIR": os.environ.get("TRIREME_CACHE_DIR", str(Path("~/.cache/trireme").expanduser()))}
HEAD, ONE, TWO = "127.0.0.41", "127.0.0.42", "127.0.0.43"


class Deployment:
    """A hosts file, and the commands on it."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.folder, self.hosts = folder, hosts
        self.port = free_port(HEAD)
        self.file: dict[str, Any] = {
            "name": "t", "folder": "~/t", "python": sys.executable, "ssh": hosts.ssh(),
            "hosts": [
                {"host": host.address, "port": host.port, "ram_gb": 1, "roles": ["coordinator" if i == 0 else "worker"]}
                for i, host in enumerate(hosts.hosts)
            ],
            "serve": {"stages": 2, "drain-seconds": 5},
            "ports": {"public": self.port, "ray": free_port(HEAD), "node-manager": 0},
        }  # fmt: skip

    async def command(self, *arguments: str) -> dict[str, Any]:
        """What `trireme up` or `down` says as JSON. Its exit code is that of `ok`."""
        path = self.folder / "hosts.yaml"
        path.write_text(json.dumps(self.file))
        name, *options = arguments
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trireme", name, str(path), *options, "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, errors = await process.communicate()
        assert said, errors.decode()
        done: dict[str, Any] = json.loads(said)
        assert process.returncode == (0 if done["ok"] else 1), errors.decode()
        return done

    async def answer(self, seed: int = 7) -> list[int]:
        async with AsyncClient(f"{HEAD}:{self.port}", timeout=120, patience=60) as client:
            stream = client.generate("Once upon a time, there was", max_tokens=30, seed=seed)
            return list((await stream.result()).token_ids)

    def processes(self, address: str = "") -> list[psutil.Process]:
        """All that runs for the hosts, or for one: their command line or environment has the home folder."""
        home = f"{self.folder}/{address.rpartition('.')[2]}"
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                words = [*process.cmdline(), process.environ().get("HOME", "")]
                if process.pid != os.getpid() and any(home in word for word in words):
                    found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def changes(done: dict[str, Any]) -> dict[str, list[str]]:
    assert done["ok"], done
    return {host["name"]: host["changes"] for host in done["hosts"]}


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    folder = Path(tempfile.mkdtemp(prefix="th-"))  # a short name: Ray's sockets lie in it
    try:
        async with ssh_hosts(folder, [HEAD, ONE, TWO], KERNELS) as hosts:
            found = Deployment(folder, hosts)
            try:
                yield found
            finally:
                for process in found.processes():  # none, where the test went well
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_up_tokens_kill_up_again_change_down(deployment: Deployment) -> None:
    done = await deployment.command("up")
    assert changes(done)[HEAD] == ["starts ray", "starts coordinator"]
    assert done["targets"] == [f"{HEAD}:{deployment.port}"]
    before = await deployment.answer()
    assert len(before) == 30

    token = (deployment.folder / "41" / "t" / "secrets" / "ray_token").read_text()
    seen = [word for process in deployment.processes() for word in process.cmdline()]
    assert len(seen) > 50
    assert not [word for word in seen if token in word]

    assert changes(await deployment.command("up")) == {HEAD: [], ONE: [], TWO: []}

    for process in deployment.processes(ONE):
        process.send_signal(signal.SIGKILL)
    assert await deployment.answer() == before  # the other host has both stages now
    assert changes(await deployment.command("up")) == {HEAD: [], ONE: ["starts ray again, which had ended"], TWO: []}

    deployment.file["hosts"][2]["ram_gb"] = 2
    done = await deployment.command("up")
    assert changes(done)[TWO] == ["starts ray anew: --memory=1000000000 becomes --memory=2000000000"]
    assert await deployment.answer() == before

    done = await deployment.command("down")
    assert changes(done)[HEAD] == ["stops coordinator", "stops ray"]
    assert deployment.processes() == []
    assert changes(await deployment.command("down", "--purge")) == {HEAD: [], ONE: [], TWO: []}
    assert not (deployment.folder / "41" / "t").exists()


async def test_a_coordinator_that_cannot_serve_leaves_no_process(deployment: Deployment) -> None:
    deployment.file["serve"]["prefill-chunk"] = 0
    done = await deployment.command("up")
    assert [host["error"] for host in done["hosts"]] == [
        "coordinator ended while it started: error: prefill-chunk is 0; it must be 1 to 4096.", None, None,
    ]  # fmt: skip
    assert deployment.processes() == []


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel of nothing but its name."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    extra = "Provides-Extra: server\nRequires-Dist: ray; extra == 'server'\n" if name != "ray" else ""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extra}")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


async def test_installing_from_a_folder_of_wheels(deployment: Deployment) -> None:
    """Environments are made on each host; that the wheels are empty shows in the one sentence of the head."""
    house = deployment.folder / "wheels"
    house.mkdir()
    wheel(house, "ray", "2.60.0")
    ours = wheel(deployment.folder, "trireme-inference", "9.9.9")
    for host in deployment.hosts.hosts:
        host.environment["PYTHONPATH"] = ""
    options = ("--install", str(ours), "--wheelhouse", str(house))
    done = await deployment.command("up", *options)
    made = [f"installs {ours.name}", "starts ray"]
    assert done["hosts"][0]["changes"] == made
    assert (
        "No module named 'ray.scripts'" in done["hosts"][0]["error"] or "No module named" in done["hosts"][0]["error"]
    )
    assert deployment.processes() == []
    for name in ("41", "42", "43"):
        (environment,) = (deployment.folder / name / "t").glob("venv-*")
        assert list(environment.glob("lib/python*/site-packages/trireme_inference-9.9.9.dist-info"))
    sent = len(deployment.hosts.hosts[1].commands)
    done = await deployment.command("up", *options)
    assert done["hosts"][1]["changes"] == []  # what is installed already is not installed again
    assert len(deployment.hosts.hosts[1].commands) == sent + 1

    (house / "ray-2.60.0-py3-none-any.whl").unlink()
    done = await deployment.command("up", *options)
    assert done["hosts"][1]["error"].startswith("pip failed: ERROR: ")
    assert len(list((deployment.folder / "42" / "t").glob("venv-*"))) == 1
