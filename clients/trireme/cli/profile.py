"""`trireme profile`: what holds a running cluster back."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from trireme import Client, Profile, ProfiledStage
from trireme.cli import options, output

Seconds = Annotated[float, typer.Option(metavar="SECONDS", help="How long to watch, 0.1 to 60.")]


def profile(
    seconds: Seconds = 5.0,
    target: options.Target = None,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what holds a running cluster back: which stage, and whether memory, compute, wire, scheduler or queue."""
    with Client(target) as client:
        if not as_json:
            output.note(f"Watching {client.target} for {seconds:g} seconds")
        found = client.profile(seconds, timeout=timeout)
    if as_json:
        output.write_json(dataclasses.asdict(found))
        return
    output.write_table(_overview(found))
    if found.stages:
        output.write_table(_stages(found))


def _overview(found: Profile) -> Table:
    table = output.pairs()
    where = "" if found.stage is None else f" of stage {found.stage}"
    table.add_row("bottleneck", Text(found.bottleneck + where, style="bold"))
    table.add_row("advice", found.advice)
    table.add_row(
        "pipeline",
        f"{found.steps} steps, {found.tokens / found.seconds:.1f} tokens/s, work {found.active:.0%} of the time,"
        f" a step {_ms(found.step_seconds)} ms, of which outside of the stages {_ms(found.other_seconds)} ms",
    )
    table.add_row("load", f"{found.load.running} running of {found.slots} slots, {found.load.waiting} waiting")
    return table


def _stages(found: Profile) -> Table:
    headers = (
        "stage",
        "layers",
        "node",
        "busy",
        "bubble",
        "compute ms",
        "wait ms",
        "wire ms",
        "reads GB/s",
        "memory GB/s",
    )
    table = output.columns(*headers)
    for each in found.stages:
        style = "bold" if each.stage == found.stage else ""
        table.add_row(*_row(each), style=style)
    return table


def _row(each: ProfiledStage) -> tuple[str, ...]:
    return (
        str(each.stage),
        f"{each.first_layer}-{each.end_layer - 1}",
        each.node,
        f"{each.busy:.0%}",
        f"{each.bubble:.0%}",
        _ms(each.compute_seconds),
        _ms(each.wait_seconds),
        _ms(each.wire_seconds),
        f"{each.read_bytes_per_s / 1e9:.2f}",
        f"{each.bandwidth_bytes_per_s / 1e9:.2f}" if each.bandwidth_bytes_per_s else "-",
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"
