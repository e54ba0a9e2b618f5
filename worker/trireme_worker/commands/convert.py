"""`trireme convert`: a Hugging Face checkpoint into a pack, with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trireme_worker.commands.signals import ended_by_signals
from trireme_worker.commands.words import count


def convert(
    src: Annotated[Path, typer.Argument(help="Folder of a Hugging Face BitNet checkpoint (safetensors).")],
    dst: Annotated[Path, typer.Argument(help="Folder to make; it must not exist, or be empty.")],
    name: Annotated[str | None, typer.Option(help="Name of the model. [default: the name of SRC]")] = None,
    head: Annotated[
        Literal["bf16", "int8", "int8+4bit"],
        typer.Option(help="How to store the output head; +4bit: with a first pass that greedy and top-k requests use."),
    ] = "int8+4bit",
    layout: Annotated[
        Literal["2bit", "1.6bit"],
        typer.Option(help="How to store the ternary weights. Workers use the one that suits their CPU."),
    ] = "1.6bit",
) -> None:
    """Convert a Hugging Face checkpoint into a pack.

    Takes model types bitnet and llama, quantised by the `bitnet` method: packed (uint8) and master weights (bfloat16,
    float16, float32).
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from trireme_worker.convert import convert as convert_checkpoint

    columns = TextColumn("Converting"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with ended_by_signals(), bars as bar:
        task = bar.add_task("convert", total=None)
        made = convert_checkpoint(
            src,
            dst,
            name=name,
            head=head,
            layout=layout,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(
        f"{dst}: {made.name}, {count(made.parameters)} parameters in {made.layers} layers, "
        f"{made.bytes / 1e6:,.1f} MB, {made.bits_per_weight:.2f} bits per ternary weight"
    )
    if made.rounded_tables:
        print("Embedding and head were rounded to bfloat16.")
