"""`trireme bench plan`: the prediction beside the deployment."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trireme.cli import options, output
from trireme.cli.deployment import Asked, measure, table


def plan(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack, such as one of `trireme synth`.")],
    stages: Annotated[int, typer.Option(min=1, max=1024, help="Workers on this machine.")] = 2,
    threads: Annotated[int, typer.Option(min=0, max=128, help="Kernel threads of each. 0: one for each CPU.")] = 0,
    prompt: Annotated[int, typer.Option(min=1, max=4096, help="Tokens of each prompt.")] = 64,
    tokens: Annotated[int, typer.Option(min=8, max=4096, help="Of each answer.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Answers; their median counts.")] = 3,
    as_json: options.AsJson = False,
) -> None:
    """Hold `trireme plan` against a deployment: serve a pack on this machine and compare what one stream gets.

    Shows, too, the share of what the memory could give at most, the memory of each stage, and the time of the start.
    Starts and stops a server of its own. Nothing else should run on the machine.
    """
    say = (lambda _: None) if as_json else output.note
    found = measure(Asked(pack, stages, threads or _cpus(), prompt, tokens, rounds), say)
    if as_json:
        output.write_json(asdict(found))
    else:
        output.write_table(table([found]))


def _cpus() -> int:
    """CPUs that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
