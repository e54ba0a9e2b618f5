"""`trireme plan`: what a set of machines will do with a model, before anything is deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

_WIDE = 500
"""Columns where nobody's terminal limits them."""


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PACK_OR_SHAPE", help="Folder of a pack, or 700m, 1.3b, 3b, 2b4t, 7b, 8b, 13b, 30b or 70b."
        ),
    ],
    nodes: Annotated[Path, typer.Option(help="YAML file of the machines; `trireme probe` writes one.")],
    prompt: Annotated[
        int | None, typer.Option(help="Tokens of the prompt that the first token is predicted for. Default: 512.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Positions that each new token attends to. Default: 1024.")
    ] = None,
    stages: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Exactly so many. Default: as many as serve best.")
    ] = None,
    layout: Annotated[
        Literal["2bit", "1.6bit"] | None, typer.Option(help="Of the weights. Default: the pack's, or 1.6bit.")
    ] = None,
    head: Annotated[
        Literal["bf16", "int8", "int8+4bit"] | None,
        typer.Option(help="How it is stored. Default: the pack's, or int8+4bit."),
    ] = None,
    kv_dtype: Annotated[Literal["float32", "float16", "int8"], typer.Option(help="KV cache.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict what a set of machines will do with a model: who gets which layers, tokens/s, memory.

    Says, too, which machines are left out and why, and what one more or one fewer of each kind would do.
    """
    from rich.console import Console

    from trireme_coordinator import placement
    from trireme_coordinator.model_costs import costs_of
    from trireme_coordinator.nodes_file import read_nodes
    from trireme_coordinator.plan_report import plan_json, plan_tables

    machines = read_nodes(nodes)
    costs = costs_of(model, layout=layout, head=head, kv_dtype=kv_dtype)
    with Console(stderr=True).status("Planning"):
        found = placement.plan(costs, machines, placement.wishes_for(costs, prompt, context), stages=stages)
    if as_json:
        print(json.dumps(plan_json(found)))
        return
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(*plan_tables(found), sep="\n\n")
