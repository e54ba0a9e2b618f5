"""`trireme bench scheduler`: joins the worker's `trireme bench` where the coordinator is installed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from trireme_worker.commands import bench

__all__ = ["bench"]


@bench.command()
def scheduler(
    tokens: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Tokens to decode for each row.")] = 50_000,
    tenants: Annotated[int, typer.Option(min=1, max=1000, help="Tenants that the sequences belong to.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time the coordinator's scheduling: microseconds of CPU a token, from 8 to 1,000 sequences."""
    from rich.console import Console
    from rich.table import Table

    from trireme_coordinator.scheduler_bench import SEQUENCES, STAGES, measure

    costs = [measure(sequences, tokens, tenants=min(tenants, sequences)) for sequences in SEQUENCES]
    if as_json:
        rows = [asdict(cost) | {"total_us": cost.total_us} for cost in costs]
        print(json.dumps({"stages": STAGES, "tenants": tenants, "rows": rows}))
        return
    table = Table("sequences", *(f"{part}, us a token" for part in ("scheduler", "frames", "metrics", "total")))
    for cost in costs:
        parts = (cost.schedule_us, cost.frame_us, cost.metrics_us, cost.total_us)
        table.add_row(str(cost.sequences), *(f"{part:.2f}" for part in parts))
    Console().print(table)
