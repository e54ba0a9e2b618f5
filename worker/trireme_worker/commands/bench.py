"""`trireme bench`: what this machine can do, and how near the kernels come to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from trireme_worker.commands.signals import ended_by_signals

bench = typer.Typer(
    help="Measure the kernels on this machine, the pipeline, and a running server.",
    add_completion=False,
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="SHAPE|PACK",
        help="700m, 1.3b, 3b, 2b4t, 7b, 8b, 13b, 30b or 70b (random weights at its sizes), or a folder with a pack.",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, max=128, help="Kernel threads. Default: one for each CPU.")]
Layout = Annotated[
    Literal["2bit", "1.6bit"] | None, typer.Option(help="Of the weights. Default: the pack's, or the faster one here.")
]
Head = Annotated[
    Literal["bf16", "int8", "int8+4bit"] | None,
    typer.Option(help="Of the output head. Default: the pack's, or int8+4bit."),
]
Kv = Annotated[Literal["float32", "float16", "int8"], typer.Option(help="How keys and values are kept.")]
Rounds = Annotated[int, typer.Option(min=5, max=1001, help="Medians are taken over so many rounds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Report = Callable[[int, int, str], None]
_WIDE = 500
"""Columns where nobody's terminal limits them."""


@bench.command()
def decode(
    model: Model,
    threads: Threads = None,
    layout: Layout = None,
    context: Annotated[int, typer.Option(min=1, help="Positions that each new token attends to.")] = 256,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Sequences that take each step together.")] = 1,
    head: Head = None,
    kv: Kv = "float32",
    rounds: Rounds = 7,
    as_json: AsJson = False,
) -> None:
    """Time decoding: tokens/s, and the share of a plain read of the same bytes."""
    from trireme_worker.bench import report
    from trireme_worker.bench.decode import Case, measure_decode
    from trireme_worker.bench.limits import Limits
    from trireme_worker.bench.models import find

    count = threads or cpus()
    with progress() as bar:
        weights, layers = find(model, layout, bar, head=head)
        case = Case(count, layers, context, batch, rounds, kv)
        with Limits((1, count)) as limits:
            result = measure_decode(weights, case, limits=limits, report=bar)
    show(asdict(result), [report.decode_table(result)], as_json, report.busy_note(result.other_cpus))


@bench.command()
def prefill(
    model: Model,
    threads: Threads = None,
    layout: Layout = None,
    tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 512,
    head: Head = None,
    kv: Kv = "float32",
    rounds: Rounds = 7,
    as_json: AsJson = False,
) -> None:
    """Time the first pass over a prompt: tokens/s, and the share of the dot product's peak."""
    from trireme_worker.bench import report
    from trireme_worker.bench.limits import Limits
    from trireme_worker.bench.models import find
    from trireme_worker.bench.prefill import Case, measure_prefill

    count = threads or cpus()
    with progress() as bar:
        weights, layers = find(model, layout, bar, head=head)
        case = Case(count, layers, tokens, rounds, kv)
        with Limits((1, count)) as limits:
            result = measure_prefill(weights, case, limits=limits, report=bar)
    show(asdict(result), [report.prefill_table(result)], as_json, report.busy_note(result.other_cpus))


@bench.command()
def kernels(
    threads: Threads = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION", help="products, decode, 70b, head, attention, contention or compile. Default: all."
        ),
    ] = None,
    rounds: Rounds = 7,
    as_json: AsJson = False,
) -> None:
    """Show which kernels this CPU gets and why, and measure each line of the table of targets. Takes minutes."""
    from trireme_worker.bench import report
    from trireme_worker.bench.suite import measure_kernels

    with progress() as bar:
        result = measure_kernels(threads or cpus(), tuple(only or ()), rounds, bar)
    tables = (
        report.dispatch_table(result.dispatch),
        report.limits_table(result.peaks),
        report.kernels_table(result.lines),
    )
    show(result.to_json(), tables, as_json, report.busy_note(result.other_cpus))


@bench.command()
def peers(
    shapes: Annotated[
        list[str] | None, typer.Argument(metavar="[SHAPE]...", help="Shapes to compare on. Default: 2b4t and 8b.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, max=128, help="Default: 1, then one for each CPU.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Batched decode; 1: none. Default: 4, 8 and 16.")
    ] = None,
    form: Annotated[
        Literal["TQ1_0", "TQ2_0"] | None, typer.Option("--format", help="Of llama.cpp. Default: both.")
    ] = None,
    context: Annotated[int, typer.Option(min=1, help="Positions that each decoded token attends to.")] = 256,
    tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 512,
    rounds: Rounds = 5,
    as_json: AsJson = False,
) -> None:
    """Compare with llama.cpp's ternary formats on the same shapes. Takes long; needs the extra `bench`.

    llama.cpp comes from PyPI as llama-cpp-python. The models that it reads are made here, and removed at the end.
    """
    from trireme_proto.errors import ConfigurationError

    try:
        from trireme_worker.bench.peers.compare import Plan, compare
        from trireme_worker.bench.peers.gguf_file import FORMATS
    except ModuleNotFoundError as error:
        if error.name in {"llama_cpp", "gguf"}:
            raise ConfigurationError(
                f"bench peers needs {error.name}: pip install 'trireme-inference[bench]'"
            ) from error
        raise
    from trireme_worker.bench import report

    counts = tuple(dict.fromkeys(threads or (1, cpus())))
    batches, kinds = tuple(batch or (4, 8, 16)), (form,) if form else FORMATS
    plan = Plan(counts, batches, context, tokens, rounds, kinds)
    with progress() as bar:
        found = list(compare(shapes or ["2b4t", "8b"], plan, bar))
    busiest = max(line.other_cpus for line in found)
    show({"results": [asdict(line) for line in found]}, [report.peers_table(found)], as_json, report.busy_note(busiest))


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show(value: dict[str, Any], tables: Sequence[Any], as_json: bool, note: str | None) -> None:
    """The result on standard output: an object or tables; what is to be said about it on standard error."""
    from rich.console import Console

    if as_json:
        print(json.dumps(value))
    else:
        console = Console(markup=False)
        if not console.is_terminal:
            console.width = _WIDE
        console.print(*tables, sep="\n\n")
    if note:
        sys.stderr.write(note + "\n")


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on standard error that says what is being done. Signals that end us do it by an exception meanwhile."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    console = Console(stderr=True, markup=False)
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with ended_by_signals(), bars as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
