"""`trireme simulate`: a load on machines that are not there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trireme_coordinator.simulation import Outcome, Pipeline

_WIDE = 200
"""Columns where nobody's terminal limits them."""


def simulate(
    nodes: Annotated[Path, typer.Option(help="YAML file of the machines, as for `trireme plan`.")],
    shape: Annotated[str, typer.Option(metavar="SHAPE|PACK", help="A public model's sizes, or a pack's.")] = "70b",
    arrivals: Annotated[
        str, typer.Option(metavar="poisson:RATE[,RATE]...", help="Requests a second, one run each.")
    ] = "poisson:1",
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Seconds of arrivals.")] = 60.0,
    count: Annotated[
        int | None, typer.Option(min=1, max=LIMITS.plan_nodes, help="So many nodes, those of the file over and over.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, max=LIMITS.plan_nodes, help="Pipelines to deal the nodes to.")] = 1,
    prompt: Annotated[
        str, typer.Option(metavar="MIX", help="Tokens of a prompt: 128, 32-128, or 32-128@0.7,1024@0.3 (weights).")
    ] = "32-128",
    output: Annotated[str, typer.Option(metavar="MIX", help="Tokens of an answer, as --prompt.")] = "64",
    objective: Annotated[
        str | None, typer.Option(metavar="LIMITS", help="For the goodput, such as ttft=2s,itl=200ms,e2e=30s.")
    ] = None,
    layout: Annotated[Literal["2bit", "1.6bit"] | None, typer.Option(help="Of the weights.")] = None,
    head: Annotated[Literal["bf16", "int8", "int8+4bit"] | None, typer.Option(help="Of the head.")] = None,
    kv_dtype: Annotated[Literal["float32", "float16", "int8"], typer.Option(help="KV cache.")] = "float32",
    slots: Annotated[int, typer.Option(min=1, max=LIMITS.frame_rows, help="Most sequences of a replica at once.")] = 64,
    queue: Annotated[int, typer.Option(min=1, help="Most requests that wait for a replica.")] = LIMITS.queue,
    prefill_chunk: Annotated[int, typer.Option(min=1, max=4096, help="Most prompt tokens in a micro-batch.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same requests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict what a load does on machines that are not there: latencies, throughput, goodput, bubble.

    The real scheduler and placement run on a virtual clock; stages take as long as their bytes and multiply-adds do.
    """
    from trireme_coordinator.model_costs import costs_of
    from trireme_coordinator.nodes_file import read_nodes
    from trireme_coordinator.placement import Wishes
    from trireme_coordinator.simulation import pipelines
    from trireme_coordinator.simulation import simulate as run
    from trireme_coordinator.simulation.machines import repeated
    from trireme_proto.load import Mix, Objective, poisson

    rates, prompts, outputs = _rates(arrivals), Mix.parse(prompt, "prompt"), Mix.parse(output, "output")
    goal = None if objective is None else Objective.parse(objective)
    model = costs_of(shape, layout=layout, head=head, kv_dtype=kv_dtype)
    if prompts.longest + outputs.longest > model.context:
        raise ConfigurationError(
            f"A prompt and its answer have up to {prompts.longest + outputs.longest} tokens;"
            f" a sequence of {model.name} holds {model.context}."
        )
    machines = read_nodes(nodes)
    wishes = Wishes(prompts.longest, round(prompts.mean + outputs.mean), prefill_chunk, slots)
    loads = [poisson(rate, prompt=prompts, output=outputs, seed=seed, seconds=seconds) for rate in rates]
    with _progress() as report:
        report(0, 0, "placing the layers")
        made = pipelines(model, repeated(machines, count or len(machines)), replicas, wishes, queue=queue)
        found = [
            run(made, load, objective=goal, report=_said(report, f"{rate:g} requests/s"))
            for rate, load in zip(rates, loads, strict=True)
        ]
    _show(model.name, made, rates, found, as_json=as_json)


def _said(report: Callable[[int, int, str], None], what: str) -> Callable[[int, int], None]:
    return lambda done, total: report(done, total, what)


def _rates(text: str) -> tuple[float, ...]:
    kind, _, rates = text.partition(":")
    try:
        found = tuple(float(rate) for rate in rates.split(","))
    except ValueError:
        found = ()
    if kind != "poisson" or not found or not all(0 < rate <= LIMITS.load_rate for rate in found):
        raise ConfigurationError(
            f"arrivals is '{text[:40]}'; write poisson:RATE, with rates above 0 up to {LIMITS.load_rate}."
        )
    return found


def _show(
    model: str, made: Sequence[Pipeline], rates: Sequence[float], found: Sequence[Outcome], *, as_json: bool
) -> None:
    from rich.console import Console
    from rich.table import Table

    from trireme_proto.load import lines

    if as_json:
        runs = [{"rate": rate, **asdict(outcome.figures)} for rate, outcome in zip(rates, found, strict=True)]
        value: dict[str, Any] = {"model": model, "replicas": [list(each.names) for each in made], "runs": runs}
        sys.stdout.write(json.dumps(value) + "\n")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    stages = sorted({len(each.stages) for each in made})
    shown = f"{stages[0]}" if len(stages) == 1 else f"{stages[0]}-{stages[-1]}"
    table.add_row("deployment", f"{model}, {len(made)} {'replica' if len(made) == 1 else 'replicas'} of {shown} stages")
    table.add_row("load", *(f"{rate:g} requests/s" for rate in rates))
    for name, *values in lines([outcome.figures for outcome in found]):
        table.add_row(name, *values)
    console = Console(markup=False)
    console.width = console.width if console.is_terminal else _WIDE
    console.print(table)


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    console = Console(stderr=True, markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total or None, description=what)
