from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trireme_coordinator.hosts.desired import Files
from trireme_coordinator.hosts.hosts_file import Hosts, read_hosts
from trireme_coordinator.hosts.units import write_units
from trireme_proto.errors import ConfigurationError

A, B = "10.0.0.1", "10.0.0.2"
URL = 'redis://u:pa"ss%$word@10.0.0.9:6379/0'


def hosts_of(folder: Path) -> Hosts:
    (folder / "url").write_text(URL)
    (folder / "hosts.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "tri",
                "model": "/srv/packs/my model",
                "hosts": [
                    {"host": A, "roles": ["coordinator"]},
                    {"host": B, "cpus": "0-15", "environment": {"GREETING": 'a "b" 100%'}},
                ],
                "serve": {"stages": 2, "drain-seconds": 20},
                "redis": {"url-file": "url"},
            }
        )
    )
    return read_hosts(folder / "hosts.yaml")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    local = Files(redis_url=URL, stage_tls={"ca.crt": b"ca", "tls.crt": b"c", "tls.key": b"k"})
    write_units(hosts_of(tmp_path), local, tmp_path / "out", sys.executable, "root")
    return tmp_path / "out"


def unit(written: Path, host: str, name: str) -> str:
    return (written / host / f"etc/systemd/system/tri-{name}.service").read_text()


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_each_host_gets_its_units_and_files(written: Path) -> None:
    found = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    stage = {f"{h}/var/lib/tri/stage-tls/{name}" for h in (A, B) for name in ("ca.crt", "tls.crt", "tls.key")}
    assert found == stage | {
        "ray_token",
        f"{A}/etc/systemd/system/tri-ray.service",
        f"{A}/etc/systemd/system/tri-coordinator.service",
        f"{A}/var/lib/tri/secrets/ray_token",
        f"{A}/var/lib/tri/secrets/coordinator.env",
        f"{B}/etc/systemd/system/tri-ray.service",
        f"{B}/var/lib/tri/secrets/ray_token",
    }


def test_secrets_are_for_their_owner_alone_and_in_no_unit(written: Path) -> None:
    for path in written.rglob("*"):
        if path.is_file() and path.suffix != ".service":
            assert path.stat().st_mode & 0o777 == 0o600, path
    token = (written / "ray_token").read_text()
    assert (written / B / "var/lib/tri/secrets/ray_token").read_text() == token
    for path in written.rglob("*.service"):
        assert token not in path.read_text()
        assert "pa" + '"ss' not in path.read_text()
    assert (written / A / "var/lib/tri/secrets/coordinator.env").read_text() == (
        'TRIREME_REDIS_URL="redis://u:pa\\"ss%$word@10.0.0.9:6379/0"\n'
    )


def test_units_run_what_up_runs(written: Path) -> None:
    (command,) = values(unit(written, B, "ray"), "ExecStart")
    assert f"-m ray.scripts.scripts start --block --address={A}:6379 --node-ip-address={B}" in command
    (command,) = values(unit(written, A, "coordinator"), "ExecStart")
    assert f'-m trireme serve "/srv/packs/my model" --drain-seconds 20 --listen {A}:50051' in command
    assert values(unit(written, B, "ray"), "ExecReload") == ["+/bin/chown -R root:root /var/lib/tri"]
    assert values(unit(written, A, "coordinator"), "Requires") == ["tri-ray.service"]
    assert values(unit(written, A, "coordinator"), "TimeoutStopSec") == ["80"]
    assert values(unit(written, B, "ray"), "CPUAffinity") == ["0-15"]
    assert '"GREETING=a \\"b\\" 100%%"' in values(unit(written, B, "ray"), "Environment")


def test_they_are_hardened(written: Path) -> None:
    for path in written.rglob("*.service"):
        text = path.read_text()
        for key, value in (
            ("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("ProtectHome", "yes"),
            ("LimitMEMLOCK", "infinity"), ("Restart", "always"), ("KillMode", "mixed"), ("CapabilityBoundingSet", ""),
        ):  # fmt: skip
            assert values(text, key) == [value], key
        assert "MemoryDenyWriteExecute" not in text  # kernels are compiled when a stage starts


def test_a_token_that_is_there_is_kept(written: Path, tmp_path: Path) -> None:
    token = (written / "ray_token").read_text()
    write_units(hosts_of(tmp_path), Files(redis_url=URL), written, sys.executable, "root")
    assert (written / "ray_token").read_text() == token
    (written / "ray_token").unlink()
    write_units(hosts_of(tmp_path), Files(redis_url=URL), written, sys.executable, "root")
    assert (written / B / "var/lib/tri/secrets/ray_token").read_text() != token


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="The units cannot be written: "):
        write_units(hosts_of(tmp_path), Files(), tmp_path / "file", sys.executable, "root")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, which is not installed")
def test_systemd_finds_nothing_wrong(written: Path) -> None:
    for path in written.rglob("*.service"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), path
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=25", path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
