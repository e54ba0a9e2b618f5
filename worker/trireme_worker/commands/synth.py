"""`trireme synth`: a pack of random weights at a public model's sizes, with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trireme_worker.commands.signals import ended_by_signals
from trireme_worker.commands.words import count


def synth(
    dst: Annotated[Path, typer.Argument(help="Folder to make; it must not exist, or be empty.")],
    shape: Annotated[
        Literal["700m", "1.3b", "3b", "2b4t", "7b", "8b", "13b", "30b", "70b"],
        typer.Option(help="The model whose sizes it has."),
    ],
    layout: Annotated[Literal["1.6bit", "2bit"], typer.Option(help="Layout of the ternary weights.")] = "1.6bit",
    head: Annotated[Literal["int8+4bit", "int8", "bf16"], typer.Option(help="How the head is stored.")] = "int8+4bit",
    layers: Annotated[int | None, typer.Option(help="Other than the shape's.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same bytes, on any machine.")] = 0,
) -> None:
    """Make a pack of random weights, at the sizes of a public model.

    It computes, loads and streams as a trained model of these sizes does; what it answers is noise.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from trireme_worker.synth import synthesise

    columns = TextColumn("Writing"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with ended_by_signals(), bars as bar:
        task = bar.add_task("synth", total=None)
        made = synthesise(
            shape,
            dst,
            layout=layout,
            head=head,
            layers=layers,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    config = made.config
    print(
        f"{dst}: {config.name}, {count(config.parameters)} parameters in {config.layers} layers, "
        f"{made.bytes / 1e6:,.1f} MB, {made.layout}, head {made.head}, seed {made.seed}"
    )
