"""The units that `trireme units` writes, under a real systemd: a booted host, an unprivileged user, the sandbox on."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.booted import Booted, booted, needs_nspawn, python_there
from tests.support.ports import free_port
from tests.support.waiting import until

from trireme import Client, TriremeError
from trireme_coordinator.auth import key_admin

pytestmark = [needs_nspawn, pytest.mark.cluster, pytest.mark.timeout(600)]
ADDRESS = "127.0.0.61"
RAY, COORDINATOR = "tri-ray.service", "tri-coordinator.service"
SCOPES = ["generate", "sessions", "cluster"]
CLONE = Path(__file__).parents[2]


@pytest.fixture
def host() -> Iterator[Booted]:
    binds, _, _ = python_there(CLONE)
    with booted(binds) as found:
        found.wait()
        found.run("useradd", "--system", "--shell", "/usr/sbin/nologin", "trireme")
        yield found


def units(folder: Path, port: int) -> Path:
    """What the command writes for the one host; the file of keys is there."""
    _, python, environment = python_there(CLONE)
    file = {
        "keys": "keys.json",
        "name": "tri",
        "hosts": [{"host": ADDRESS, "ram_gb": 1, "environment": environment, "roles": ["coordinator", "worker"]}],
        "serve": {"stages": 2, "drain-seconds": 5},
        "ports": {"public": port, "ray": free_port(ADDRESS), "node-manager": 0},
    }
    (folder / "hosts.yaml").write_text(json.dumps(file))
    command = [sys.executable, "-m", "trireme", "units", folder / "hosts.yaml", folder / "units"]
    subprocess.run([*command, "--python", python, "--user", "trireme"], check=True)
    return folder / "units" / ADDRESS


def copy(tree: Path, host: Booted) -> None:
    """As the guide says; the files come to belong to root."""
    packed = subprocess.run(["tar", "-C", tree, "-c", "."], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-C", host.root, "-x", "--no-overwrite-dir"], input=packed, check=True)
    host.run("systemctl", "daemon-reload")


def journal(host: Booted) -> str:
    return host.run("journalctl", "--no-pager", "--unit", COORDINATOR)


def shown(host: Booted, unit: str, what: str) -> str:
    return host.run("systemctl", "show", "--value", "--property", what, unit).strip()


def serves(client: Client) -> bool:
    """Whether it answers; the coordinator may be started some times before Ray is there."""
    with contextlib.suppress(TriremeError):
        return bool(client.status().stages)
    return False


def answer(client: Client) -> list[int]:
    until(lambda: serves(client), 240, "serving")
    return list(client.generate("Once upon a time, there was", max_tokens=30, seed=7).result().token_ids)


def test_they_run_answer_come_back_and_can_be_written_anew(host: Booted, tmp_path: Path) -> None:
    port, keys = free_port(ADDRESS), tmp_path / "keys.json"
    first, key = key_admin.create(keys, "acme", SCOPES, datetime.now(UTC))
    copy(units(tmp_path, port), host)
    host.run("systemctl", "enable", "--now", RAY, COORDINATOR)
    with Client(f"{ADDRESS}:{port}", timeout=240, patience=200, api_key=key) as client:
        before = answer(client)
        assert len(before) == 30
        assert shown(host, RAY, "User") == "trireme"
        assert "trireme" in host.run("ps", "-o", "user=", "-p", shown(host, COORDINATOR, "MainPID"))

        host.run("systemctl", "kill", "--signal=KILL", RAY)  # the coordinator goes with it
        until(lambda: int(shown(host, RAY, "NRestarts")), 60, "a restart")
        assert answer(client) == before

        shutil.rmtree(tmp_path / "units")  # so that the token is another one
        copy(units(tmp_path, port), host)
        secrets = host.root / "var/lib/tri/secrets"
        assert {path.owner() for path in secrets.iterdir()} == {"root"}
        host.run("systemctl", "restart", RAY, COORDINATOR)
        assert answer(client) == before

        _, second = key_admin.create(keys, "acme", SCOPES, datetime.now(UTC))
        key_admin.revoke(keys, first.key_id, datetime.now(UTC))
        copy(units(tmp_path, port), host)
        until(lambda: serves(client) and "stay" in journal(host), 60, "keys that cannot be read")
        host.run("systemctl", "reload", RAY, COORDINATOR)
        assert "root" not in host.run("find", "/var/lib/tri", "-printf", "%u\n")
        until(lambda: not serves(client), 10, "the end of the revoked key")
        with Client(f"{ADDRESS}:{port}", timeout=60, api_key=second) as other:
            assert answer(other) == before

    host.run("systemctl", "stop", COORDINATOR, RAY)
    assert not host.run("ps", "-u", "trireme", "-o", "comm=", check=False)
