"""Calls through the system's ssh to real SSH servers."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from pathlib import Path

import pytest
from tests.support.ssh_hosts import Hosts, needs_ssh, ssh_hosts

from trireme_coordinator.hosts import ssh
from trireme_coordinator.hosts.hosts_file import Host, read_hosts
from trireme_proto.errors import ConfigurationError, StartupError

pytestmark = needs_ssh
SECRET = "c2VjcmV0LXRva2Vu"  # noqa: S105


def host_of(hosts: Hosts, folder: Path, **changes: object) -> Host:
    ((server,),) = (hosts.hosts,)
    entry = {"host": server.address, "port": server.port, "roles": ["coordinator", "worker"]}
    file = folder / "hosts.yaml"
    file.write_text(json.dumps({"ssh": hosts.ssh(), "python": sys.executable, "hosts": [entry | changes]}))
    return read_hosts(file).hosts[0]


async def ask(host: Host, **request: object) -> dict[str, object]:
    return await ssh.call(host, {"root": "~/t", **request}, lambda _: None)


async def test_a_request_and_its_result(tmp_path: Path) -> None:
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        host = host_of(hosts, tmp_path)
        done = await ask(host, do="apply", steps=[{"write": "token", "data": SECRET}, {"secret": "token"}])
        assert done["results"][1] == "secret-token"
        assert (hosts.hosts[0].home / "t" / "token").read_text() == "secret-token"
        assert "secret-token" not in repr(hosts.hosts[0].commands)
        assert SECRET not in repr(hosts.hosts[0].commands)


async def test_what_the_agent_refuses_is_said(tmp_path: Path) -> None:
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        step = {"start": "one", "argv": ["sh", "-c", "echo oh no"], "env": {}, "spec": {}, "ready": "x", "seconds": 9}
        host = host_of(hosts, tmp_path)
        with pytest.raises(StartupError, match=r"^one ended while it started: oh no$"):
            await ask(host, do="apply", steps=[step])


async def test_a_shell_that_prints_does_not_disturb(tmp_path: Path) -> None:
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        noisy = tmp_path / "noisy"
        noisy.write_text(f'#!/bin/sh\necho "Welcome {{"\nexec {sys.executable} "$@"\n')
        noisy.chmod(0o700)
        assert await ask(host_of(hosts, tmp_path, python=str(noisy)), do="apply", steps=[]) == {
            "started": [],
            "results": [],
        }


async def test_a_shell_that_prints_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_LINE_BYTES", 1 << 10)
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        endless = tmp_path / "endless"
        endless.write_text('#!/bin/sh\n[ "$1" = - ] || exit 0\nhead -c 9999 /dev/zero\n')
        endless.chmod(0o700)
        host = host_of(hosts, tmp_path, python=str(endless))
        with pytest.raises(StartupError, match=r"^The host answers with a line that is too long\.$"):
            await ask(host, do="apply", steps=[])


async def test_each_reason_why_ssh_fails_is_a_sentence(tmp_path: Path) -> None:
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        (tmp_path / "other").write_bytes(hosts.key.read_bytes().replace(b"A", b"B", 1))
        (tmp_path / "other").chmod(0o600)
        (tmp_path / "nobody").touch()
        with socket.create_server(("127.0.0.31", 0)) as probe:
            free = probe.getsockname()[1]
        for changes, sentence in (
            ({"key": str(tmp_path / "other")}, "ssh cannot connect: it refuses the key of that user."),
            ({"port": free}, "ssh cannot connect: nothing listens on its ssh port."),
            (
                {"options": ["UserKnownHostsFile=/dev/null"]},
                "ssh cannot connect: its host key is not known; connect once",
            ),
            ({"options": ["Nonsense=1"]}, "ssh cannot connect: an ssh option is not known."),
            ({"host": "no-such-host.invalid", "address": "127.0.0.31"}, "ssh cannot connect: its name is not known."),
            (
                {"python": "/nowhere/python"},
                "There is no Python at '/nowhere/python'; name one with 'python', or install",
            ),
            ({"python": "~/my python"}, "There is no Python at '~/my python'; name one"),
            ({"python": "false"}, "'false' is older than Python 3.11."),
        ):
            with pytest.raises(StartupError) as caught:
                await ask(host_of(hosts, tmp_path, **changes), do="apply", steps=[])
            assert caught.value.message.startswith(sentence)


async def test_an_address_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_CONNECT_SECONDS", 1)
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        with socket.socket() as silent:  # listens, but nobody takes what is in its full queue
            silent.bind(("127.0.0.31", 0))
            silent.listen(0)
            with socket.create_connection(silent.getsockname()):
                host = host_of(hosts, tmp_path, port=silent.getsockname()[1])
                with pytest.raises(StartupError, match=r"^ssh cannot connect: it does not answer\.$"):
                    await ask(host, do="apply", steps=[])


async def test_without_ssh_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(ConfigurationError, match="There is no ssh on this machine; install OpenSSH's client"):
            await ask(host_of(hosts, tmp_path), do="apply", steps=[])


async def test_files_are_copied(tmp_path: Path) -> None:
    async with ssh_hosts(tmp_path, ["127.0.0.31"]) as hosts:
        (tmp_path / "big.whl").write_bytes(bytes(range(256)) * 20_000)
        (tmp_path / "small.whl").write_bytes(b"x")
        host = host_of(hosts, tmp_path)
        await ask(host, do="apply", steps=[{"folder": "wheels"}])
        there = hosts.hosts[0].home / "t" / "wheels"
        await ssh.send(host, str(there), [tmp_path / "big.whl", tmp_path / "small.whl"])
        assert (there / "big.whl").read_bytes() == (tmp_path / "big.whl").read_bytes()
        assert (there / "small.whl").stat().st_mode & 0o777 == 0o600
        with pytest.raises(StartupError, match="The wheels could not be copied: "):
            await ssh.send(dataclasses.replace(host, python="/nowhere/python"), str(there), [tmp_path / "big.whl"])
