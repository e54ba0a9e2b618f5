"""`trireme bench recovery`: workers are killed under running streams."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from trireme_proto.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.table import Table

    from trireme_coordinator.bench.recovery import Result, Spread


def bench_recovery(
    kills: Annotated[int, typer.Option(min=1, max=10_000, help="Workers to kill, one after the other.")] = 20,
    stages: Annotated[int, typer.Option(min=1, max=6, help="Stages, each a worker process.")] = 3,
    streams: Annotated[int, typer.Option(min=1, max=32, help="Answers that run when a worker is killed.")] = 4,
    tokens: Annotated[int, typer.Option(min=4, max=128, help="Of each answer.")] = 100,
    how: Annotated[str, typer.Option(help="kill (SIGKILL) or stop (SIGSTOP: frozen for good).")] = "kill",
    seed: Annotated[int, typer.Option(min=0, help="Of victims, moments and prompts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Kill random workers at random steps of running streams, and see whether each answer goes on as if nothing was.

    Starts a deployment of its own with the bundled model. A round takes two to four seconds.
    """
    from rich.console import Console

    from trireme_coordinator.bench.recovery import SIGNALS, Plan, measure

    if how not in SIGNALS:
        raise ConfigurationError(f"how is '{how}'; it must be {' or '.join(SIGNALS)}.")
    plan = Plan(kills=kills, stages=stages, streams=streams, tokens=tokens, how=how, seed=seed)
    # Ray prints on standard output that a worker died: that is the figures' own.
    with redirect_stdout(sys.stderr), Console(stderr=True, markup=False).status("starting") as status:
        result = asyncio.run(measure(plan, status.update))
    if as_json:
        sys.stdout.write(json.dumps(result.as_json()) + "\n")
    else:
        Console(markup=False).print(_table(result))


def _table(result: Result) -> Table:
    from rich.table import Table

    table = Table("", "", box=None, padding=(0, 2, 0, 0), show_header=False)
    verdicts = ", ".join(f"{count} {cause}" for cause, count in result.causes.items())
    table.add_row("workers lost", f"{result.kills} ({verdicts})")
    table.add_row("answers", f"{result.exact} of {result.answers} exact, {result.failed} failed")
    wrong = f"{result.lost_tokens} lost, {result.duplicated_tokens} duplicated, {result.other_tokens} other"
    table.add_row("tokens", wrong)
    table.add_row("signal to next token", _seconds(result.recovery_s))
    table.add_row("  of which detection", _seconds(result.detection_s))
    table.add_row("  of which rebuilding", _seconds(result.rebuild_s))
    return table


def _seconds(spread: Spread) -> str:
    return f"p50 {spread.p50:.2f} s, p95 {spread.p95:.2f} s, most {spread.most:.2f} s"
