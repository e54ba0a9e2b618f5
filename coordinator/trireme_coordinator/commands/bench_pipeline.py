"""`trireme bench pipeline`: the pipeline without kernels."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from trireme_coordinator.bench.pipeline import Compared, Result

_FRAME_SHAPE = "2b4t"
_WIDE = 200
"""Columns where nobody's terminal limits them."""


def bench_pipeline(
    stages: Annotated[int, typer.Option(min=1, max=64, help="Stages, all in this process.")] = 4,
    streams: Annotated[int, typer.Option(min=1, max=256, help="Answers decoded at once.")] = 8,
    step_ms: Annotated[float, typer.Option(min=0.1, max=10000, help="A stage's time for a decode step.")] = 40.0,
    token_ms: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="A stage's time for a prompt token. Default: 4 / stages.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=5, max=4096, help="Of each answer.")] = 40,
    prompt: Annotated[int, typer.Option(min=0, max=8000, help="Tokens of the long prompt; 0: no prefill.")] = 4096,
    prefill_chunk: Annotated[int, typer.Option(min=1, max=4096, help="Most prompt tokens in a micro-batch.")] = 128,
    load_seconds: Annotated[float, typer.Option(min=0, max=600, help="Of random requests; 0: none.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random requests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how busy the pipeline keeps its stages, and how near the simulation comes to it.

    The stages sleep instead of computing; scheduler, frames and gRPC are the real ones.
    """
    from rich.console import Console

    from trireme_coordinator.bench.pipeline import Plan, measure
    from trireme_worker.synth.shapes import shape

    plan = Plan(
        stages=stages,
        streams=streams,
        step_s=step_ms / 1e3,
        token_s=(4 / stages if token_ms is None else token_ms) / 1e3,
        tokens=tokens,
        prompt=prompt,
        prefill_chunk=prefill_chunk,
        load_seconds=load_seconds,
        seed=seed,
    )
    with Console(stderr=True, markup=False).status("starting") as status:
        result = asyncio.run(measure(shape(_FRAME_SHAPE), plan, status.update))
    if as_json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        console = Console(markup=False)
        console.width = console.width if console.is_terminal else _WIDE
        console.print(_table(result, plan.prompt))


def _table(result: Result, prompt: int) -> Table:
    from rich.table import Table

    table = Table("", "measured", "", "simulated", "error", box=None, padding=(0, 2, 0, 0))
    table.add_row("stages", f"{result.stages} of {result.step_ms:g} ms, a hop {result.hop_ms:.2f} ms")
    share = f"{result.of_ideal:.1%} of the ideal {result.ideal_tokens_per_s:.1f}"
    _line(table, f"tokens/s, {result.streams} streams", result.tokens_per_s, share)
    if result.prefill_s is not None:
        share = f"{result.of_one_stage:.1%} of the one-stage {result.one_stage_prefill_s:.2f} s"
        _line(table, f"prefill of {prompt} tokens, s", result.prefill_s, share)
    for name, compared in (result.load or {}).items():
        _line(table, f"random requests: {name}", compared, "")
    return table


def _line(table: Table, name: str, compared: Compared, note: str) -> None:
    values = f"{compared.measured:.3g}", note, f"{compared.simulated:.3g}", f"{compared.error:+.1%}"
    table.add_row(name, *values)
