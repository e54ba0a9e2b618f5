"""Hosts to bring clusters up on: real SSH servers in this process, each with its own loopback address and home folder,
that run commands as real processes. The client is the system's `ssh`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import asyncssh
import pytest

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client, which is not installed")


@dataclass
class SshHost:
    """One of them. `commands`: what was run on it."""

    address: str
    home: Path
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    running: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Runs a command as sshd does: by the user's shell, in the home folder, with little of an environment."""
        command = process.command or ""
        self.commands.append(command)
        child = await asyncio.create_subprocess_exec(
            "sh", "-c", command, cwd=self.home, env=self.environment | {"HOME": str(self.home)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.running.add(cast("asyncio.Task[None]", asyncio.current_task()))
        feeding = asyncio.ensure_future(_feed(process, child))
        try:
            await asyncio.gather(_pass(child.stdout, process.stdout), _pass(child.stderr, process.stderr))
            process.exit(await child.wait())
            await process.wait_closed()
        finally:
            feeding.cancel()
            await _end(child)

    async def close(self) -> None:
        """Ends what runs, as a host does that is switched off."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


async def _pass(source: asyncio.StreamReader | None, to: asyncssh.SSHWriter[bytes]) -> None:
    """All that a command says, before its end is told."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, asyncssh.Error):
        while source is not None and (data := await source.read(1 << 16)):
            to.write(data)
            await to.drain()


async def _end(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.communicate()  # its pipes close with it


async def _feed(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    """Standard input, as far as the command reads it."""
    if child.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, asyncssh.Error):
        while data := await process.stdin.read(1 << 16):
            child.stdin.write(data)
            await child.stdin.drain()
    child.stdin.close()


@dataclass
class Hosts:
    """Several, and how to reach them."""

    hosts: list[SshHost]
    key: Path
    known: Path

    def ssh(self) -> dict[str, object]:
        """The part `ssh` of a hosts file."""
        return {"key": str(self.key), "user": "tester", "options": [f"UserKnownHostsFile={self.known}"]}


@asynccontextmanager
async def ssh_hosts(folder: Path, addresses: list[str], environment: Mapping[str, str] = {}) -> AsyncIterator[Hosts]:
    """Servers at the addresses, of this user's own; they take one key, and are known by theirs."""
    key, host_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    found = Hosts([], folder / "id", folder / "known_hosts")
    key.write_private_key(str(found.key))
    found.key.chmod(0o600)
    (folder / "authorized").write_bytes(key.export_public_key())
    servers = []
    for address in addresses:
        home = folder / address.rpartition(".")[2]
        home.mkdir()
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        given = {"PATH": places, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        host = SshHost(address, home, environment=given)
        server = await asyncssh.listen(
            address, 0, server_host_keys=[host_key], authorized_client_keys=str(folder / "authorized"),
            process_factory=host.run, encoding=None,
        )  # fmt: skip
        host.port = server.get_port()
        servers.append(server)
        found.hosts.append(host)
    public = host_key.export_public_key().decode().strip()
    found.known.write_text("".join(f"[{host.address}]:{host.port} {public}\n" for host in found.hosts))
    try:
        yield found
    finally:
        for server, host in zip(servers, found.hosts, strict=True):
            server.close()
            await server.wait_closed()
            await host.close()
