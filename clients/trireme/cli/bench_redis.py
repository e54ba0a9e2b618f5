"""`trireme bench redis`: the session store is killed and frozen while clients read: do their tokens come any later?"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Annotated

import typer
from rich.table import Table

from trireme import AsyncClient
from trireme.bench.interruptions import Latency, Readers, Window
from trireme.cli import options, output
from trireme.cli.server_process import ServerProcess, serve_command
from trireme_proto.errors import StartupError

_READY_SECONDS = 300.0
_TOKENS = 200
_WINDOW = 3.0
"""Seconds: calm ones and disturbed ones take turns."""
_SETTLE = 2.0
"""Seconds after a disturbance that count for neither: the backlog is written then."""
_STORE = "valkey-server"


@dataclass(frozen=True)
class Disturbed:
    """ITL while the store was gone or frozen, beside the ITL just before; see `trireme.bench.interruptions`."""

    kills: int
    freezes: int
    streams: int
    answers: int
    wrong: int
    """Answers with other tokens than undisturbed."""
    failed: int
    calm: Latency
    killed: Latency
    frozen: Latency


def redis(
    kills: Annotated[int, typer.Option(min=1, max=10_000, help="Times that the session store is killed.")] = 20,
    freezes: Annotated[int, typer.Option(min=1, max=10_000, help="Times that it stands still for 3 s.")] = 20,
    streams: Annotated[int, typer.Option(min=1, max=64, help="Answers that are read at once.")] = 4,
    stages: Annotated[int, typer.Option(min=1, max=64, help="Stages of the pipeline.")] = 2,
    as_json: options.AsJson = False,
) -> None:
    """Kill and freeze the session store again and again: do the tokens of running answers come later?

    Starts a server of its own with the bundled model and the embedded store. Takes about 8 seconds a disturbance.
    """
    found = asyncio.run(_measure(kills, freezes, streams, stages))
    if as_json:
        output.write_json(asdict(found))
        return
    output.write_table(_table(found))


async def _measure(kills: int, freezes: int, streams: int, stages: int) -> Disturbed:
    with ServerProcess(serve_command(stages)) as server:
        output.note("Starting a server")
        target = await asyncio.to_thread(server.wait_ready, _READY_SECONDS, lambda _: None)
        async with AsyncClient(target) as client:
            readers = Readers(client, streams, _TOKENS)
            await readers.start()
            calm: list[Window] = []
            killed = [await _disturb(readers, calm, lambda: _kill(server.pid), f"kill {n}") for n in _upto(kills)]
            frozen = [await _disturb(readers, calm, lambda: _freeze(server.pid), f"freeze {n}") for n in _upto(freezes)]
            await readers.stop()
    for error in readers.errors:
        output.note(f"an answer failed: {error.message}")
    latencies = [readers.latency(windows) for windows in (calm, killed, frozen)]
    return Disturbed(kills, freezes, streams, readers.answers, readers.wrong, len(readers.errors), *latencies)


def _upto(count: int) -> list[str]:
    return [f"{number} of {count}" for number in range(1, count + 1)]


async def _disturb(readers: Readers, calm: list[Window], begin: Callable[[], Callable[[], None]], what: str) -> Window:
    """The window of one disturbance; the calm one before it goes to `calm`."""
    calm.append(await _window())
    end = begin()
    try:
        disturbed = await _window()
    finally:
        end()
    await asyncio.sleep(_SETTLE)
    output.note(f"{what}, {readers.answers} answers")
    return disturbed


async def _window() -> Window:
    begin = monotonic()
    await asyncio.sleep(_WINDOW)
    return begin, monotonic()


def _kill(server: int) -> Callable[[], None]:
    os.kill(_store_of(server), signal.SIGKILL)
    return lambda: None  # the server starts it again


def _freeze(server: int) -> Callable[[], None]:
    store = _store_of(server)
    os.kill(store, signal.SIGSTOP)
    return lambda: os.kill(store, signal.SIGCONT)


def _store_of(server: int) -> int:
    """Process id of a server's embedded store."""
    import psutil  # noqa: PLC0415  (comes with the server that this command starts)

    for child in psutil.Process(server).children(recursive=True):
        if child.name() == _STORE:
            return int(child.pid)
    raise StartupError("The session store has not been started again.")


def _table(found: Disturbed) -> Table:
    made = Table("session store", "tokens", "ITL p50, ms", "ITL p99, ms", "longest, ms", "p99 by calm p99", box=None)
    for name, each in (("well", found.calm), ("killed", found.killed), ("frozen", found.frozen)):
        times = (f"{seconds * 1e3:.2f}" for seconds in (each.p50_s, each.p99_s, each.longest_s))
        share = f"{each.p99_s / found.calm.p99_s:.2f}" if found.calm.p99_s else ""
        made.add_row(name, str(each.tokens), *times, share)
    made.caption = f"{found.answers} answers, {found.wrong} wrong, {found.failed} failed"
    return made
