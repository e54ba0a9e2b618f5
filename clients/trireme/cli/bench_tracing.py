"""`trireme bench tracing`: what traces cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trireme.cli import options, output, tracing_cost, tracing_figures


def tracing(
    pack: Annotated[Path | None, typer.Argument(help="Folder of a pack. Default: the bundled model.")] = None,
    stages: Annotated[int, typer.Option(min=1, max=1024, help="Stages of each of the two servers.")] = 1,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Kernel threads of each stage.")] = 1,
    tokens: Annotated[int, typer.Option(min=16, max=4096, help="Of each answer.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Answers of each of them.")] = 15,
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of requests that are delivered. Default: the server's.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what traces cost: one stream of a server that traces, and of one that does not, in turns.

    Starts and stops servers of its own on this machine. Nothing else should run on it.
    """
    say = (lambda _: None) if as_json else output.note
    found = tracing_cost.measure(pack, stages, threads, tokens, rounds, share, say)
    if as_json:
        output.write_json(asdict(found))
    else:
        output.write_table(tracing_figures.table(found))
