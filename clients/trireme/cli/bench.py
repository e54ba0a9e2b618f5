"""`trireme bench serve`: load on a running server. The group's other commands join from the server's packages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trireme import AsyncClient
from trireme.bench import plot as pictures
from trireme.bench import report
from trireme.bench.load import LoopClock
from trireme.bench.runs import Plan, Report, Run, measure
from trireme.cli import options, output
from trireme.cli import overhead as costs
from trireme.cli.bench_failover import failover
from trireme.cli.bench_plan import plan
from trireme.cli.bench_redis import redis
from trireme.cli.bench_tracing import tracing
from trireme.cli.secured import secured
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS
from trireme_proto.load import Mix, Objective

app = typer.Typer(help="Measure kernels, pipeline and service.", add_completion=False, pretty_exceptions_enable=False)
_SECONDS = 30.0
_REQUESTS_A_STREAM = 4
_STREAMS = 1024


@app.callback()
def group() -> None:
    """Measure kernels, pipeline and service."""


@app.command()
@secured
def serve(
    target: Annotated[
        str | None,
        typer.Argument(metavar="HOST:PORT", help="The server. Default: TRIREME_TARGET, else localhost:50051."),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R[,R]...", help="Requests a second, one run each. Default: 1.")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N[,N]...", help="Instead of --rate: so many streams at once, one run each.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, max=LIMITS.load_requests, help="Requests in a run.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=86400, help="Seconds of arrivals in a run. Default: 30.")
    ] = None,
    prompt: Annotated[
        str, typer.Option(metavar="MIX", help="Tokens of a prompt: 128, 32-128, or 32-128@0.7,1024@0.3 (weights).")
    ] = "32-128",
    answer: Annotated[str, typer.Option("--output", metavar="MIX", help="Tokens of an answer, as --prompt.")] = "64",
    objective: Annotated[
        str | None, typer.Option(metavar="LIMITS", help="For the goodput, such as ttft=2s,itl=200ms,e2e=30s.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed sends the same requests.")] = 0,
    timeout: options.Timeout = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the figures. Needs matplotlib.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Put a load on a running server, and show latencies, throughput, goodput and how busy its stages are.

    Requests come at random moments (Poisson), whether the server keeps up or not, and latencies count from the moment
    at which a request was due. Ctrl-C shows what was measured so far.
    """
    load = _load(rate, concurrency, requests, seconds, prompt, answer, objective, seed)
    if plot is not None:
        pictures.check_plot(plot)
    runs, complete = asyncio.run(_measure(target, load, timeout))
    if as_json:
        output.write_json(report.as_json(load, runs, complete=complete))
    else:
        output.write_table(report.table(runs))
    if plot is not None:
        pictures.plot(runs, plot)
    if not complete:
        output.note("Interrupted: these are the figures of what was measured so far.")
        raise typer.Exit(130)


@app.command()
def overhead(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack, such as one of `trireme synth`.")],
    stages: Annotated[str, typer.Option(metavar="N[,N]...", help="Workers on this machine, one run each.")] = "1,4",
    threads: Annotated[int, typer.Option(min=1, max=128, help="Kernel threads of each worker.")] = 1,
    tokens: Annotated[int, typer.Option(min=16, max=4096, help="Of each answer.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Answers; their median counts.")] = 5,
    as_json: options.AsJson = False,
) -> None:
    """Show what serving adds to the kernels: one stream over gRPC beside the bare kernel loop on the same pack.

    Starts and stops servers of its own on this machine. Nothing else should run on it.
    """
    counts = [int(n) for n in _numbers("stages", stages, 1024)]
    say = (lambda _: None) if as_json else output.note
    found = costs.measure(pack, counts, threads, tokens, rounds, say)
    if as_json:
        output.write_json({"results": [asdict(each) for each in found]})
    else:
        output.write_table(costs.table(found))


app.command()(plan)
app.command()(failover)
app.command()(tracing)
app.command()(redis)


async def _measure(target: str | None, plan: Plan, timeout: float | None) -> tuple[list[Run], bool]:  # noqa: ASYNC109
    limit = 600.0 if timeout is None else timeout
    async with AsyncClient(target, timeout=limit, retries=0) as client:
        with _progress() as bar:
            return await measure(client, plan, clock=LoopClock(), report=bar)


def _load(
    rate: str | None,
    concurrency: str | None,
    requests: int | None,
    seconds: float | None,
    prompt: str,
    answer: str,
    objective: str | None,
    seed: int,
) -> Plan:
    if rate is not None and concurrency is not None and rate != "0":
        raise ConfigurationError("Give --rate or --concurrency, not both.")
    if rate == "0" and concurrency is None:
        raise ConfigurationError("--rate 0 sends the next request when the last one ended: say --concurrency, too.")
    streams = tuple(int(n) for n in _numbers("concurrency", concurrency, _STREAMS)) if concurrency else ()
    if streams and seconds is not None:
        raise ConfigurationError("With --concurrency, give --requests and not --seconds.")
    return Plan(
        rates=() if streams else _numbers("rate", rate or "1", LIMITS.load_rate),
        streams=streams,
        prompt=Mix.parse(prompt, "prompt"),
        output=Mix.parse(answer, "output"),
        requests=requests or (_REQUESTS_A_STREAM * max(streams) if streams else None),
        seconds=None if streams else seconds or (None if requests else _SECONDS),
        objective=None if objective is None else Objective.parse(objective),
        seed=seed,
    )


def _numbers(what: str, text: str, most: int) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    whole = what != "concurrency" or all(number.is_integer() for number in found)
    if not found or not whole or not all(0 < number <= most for number in found):
        raise ConfigurationError(f"{what} is '{text[:40]}'; write numbers above 0 up to {most}, such as 1,2,4.")
    return found


@contextmanager
def _progress() -> Iterator[Report]:
    from rich.console import Console  # noqa: PLC0415 - only where something is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    console = Console(stderr=True, markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("asking the server", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total or None, description=what)
