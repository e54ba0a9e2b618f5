"""`trireme bench failover`: two coordinators on one cluster of this machine; the leading one is killed again and again
while clients read.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from time import monotonic
from typing import Annotated

import typer
from rich.table import Table

from trireme import AsyncClient
from trireme.bench.failover import Figures, Readers
from trireme.cli import options, output
from trireme.cli.server_process import ServerProcess, serve_command
from trireme_proto.errors import DeadlineExceeded, ServerUnreachable, StartupError

_READY_SECONDS = 300.0
_STATUS_SECONDS = 10.0
_POLL_SECONDS = 0.2
_CLUSTER = [sys.executable, "-m", "trireme_coordinator.local_cluster"]
_PORTS = range(20_000, 32_768)
_TOKENS = 200
_LONGEST_PAUSE = 2.0
"""Seconds between a recovery and the next kill, at most."""


def failover(
    kills: Annotated[int, typer.Option(min=1, max=10_000, help="Times that the leading coordinator is killed.")] = 10,
    streams: Annotated[int, typer.Option(min=1, max=64, help="Answers that are read at once.")] = 4,
    stages: Annotated[int, typer.Option(min=1, max=64, help="Stages of the pipeline.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed kills after the same pauses.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Kill the leading coordinator again and again: are all answers exact, and how long do their readers wait?

    Starts Ray, Redis and two coordinators with the bundled model on this machine.
    """
    found = asyncio.run(_Group(stages).measure(kills, streams, random.Random(seed)))  # noqa: S311 - not for secrets
    if as_json:
        output.write_json(asdict(found))
        return
    output.write_table(_table(found))


class _Group:
    """The processes."""

    def __init__(self, stages: int) -> None:
        self._stages = stages
        self._addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
        self._told: dict[str, str] = {}
        self._environment: dict[str, str] = {}
        self._running: dict[str, ServerProcess] = {}

    async def measure(self, kills: int, streams: int, rng: random.Random) -> Figures:
        with ExitStack() as stack:
            stack.callback(self._stop)
            cluster = stack.enter_context(ServerProcess(_CLUSTER))
            output.note("Starting Ray, Redis and two coordinators")
            await asyncio.to_thread(cluster.wait_ready, _READY_SECONDS, self._tell)
            for address in self._addresses:
                await self._start(address)
            async with AsyncClient(self._addresses, api_key="", ca="", cert="", key="") as client:
                return await self._kill(Readers(client, streams, _TOKENS), kills, rng)

    async def _kill(self, readers: Readers, kills: int, rng: random.Random) -> Figures:
        await readers.start()
        times = []
        for number in range(1, kills + 1):
            await asyncio.sleep(rng.uniform(0, _LONGEST_PAUSE))
            leader = await self._leader()
            times.append(monotonic())
            self._running[leader].kill()
            await asyncio.wait_for(readers.flow_again(times[-1]), _READY_SECONDS)
            await self._start(leader)
            output.note(f"{number} of {kills} kills, {readers.answers} answers")
        await readers.stop()
        for error in readers.errors:
            output.note(f"an answer failed: {error.message}")
        return readers.figures(times)

    async def _leader(self) -> str:
        """Waits until one leads. StartupError where one of them has ended by itself."""
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                for address in self._addresses:
                    self._running[address].check()
                    if await _leads(address):
                        return address
                await asyncio.sleep(_POLL_SECONDS)

    async def _start(self, address: str) -> None:
        command = serve_command(
            self._stages,
            *("--redis-url", self._told["redis_url"], "--ray-address", self._told["ray_address"]),
            "--insecure-no-stage-tls",  # one machine, though Ray calls it by its address in the network
            listen=address,
        )
        self._running[address] = process = ServerProcess(command, environment=self._environment)
        process.__enter__()
        await asyncio.to_thread(process.wait_ready, _READY_SECONDS, lambda _: None)

    def _stop(self) -> None:
        for process in self._running.values():
            process.__exit__(None, None, None)

    def _tell(self, line: str) -> None:
        """One NAME=VALUE of the cluster; variables are in capitals."""
        name, _, value = line.partition("=")
        (self._environment if name.isupper() else self._told)[name] = value


async def _leads(address: str) -> bool:
    """No where it does not say in time: it may be taking over."""
    async with AsyncClient(address, api_key="", ca="", cert="", key="") as client:
        try:
            return (await client.status(timeout=_STATUS_SECONDS)).leading
        except (ServerUnreachable, DeadlineExceeded):
            return False


def _free_ports(count: int) -> list[int]:
    """That stay free while a coordinator is gone: not those from which the system serves connections."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise StartupError("No port is free on this machine.")


def _table(found: Figures) -> Table:
    table = output.pairs()
    table.add_row("kills", str(found.kills))
    table.add_row("answers", f"{found.answers} whole, {found.wrong} of them wrong, {found.failed} failed")
    gaps = (found.gap_p50_s, found.gap_p95_s, found.gap_max_s)
    table.add_row("gap", "p50 {:.2f} s, p95 {:.2f} s, longest {:.2f} s".format(*gaps))
    return table
