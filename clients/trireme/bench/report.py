"""The figures of runs as a table, one column a run, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from trireme.bench.runs import Plan, Run
from trireme_proto.load import lines


def table(runs: Sequence[Run]) -> Table:
    """All runs side by side."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    made.add_row("load", *(f"{r.streams} streams" if r.rate is None else f"{r.rate:g} requests/s" for r in runs))
    for name, *values in lines([run.figures for run in runs]):
        made.add_row(name, *values)
    return made


def as_json(plan: Plan, runs: Sequence[Run], *, complete: bool) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "complete": complete,
        "prompt": plan.prompt.text,
        "output": plan.output.text,
        "seed": plan.seed,
        "objective": asdict(plan.objective) if plan.objective else None,
        "runs": [{"rate": run.rate, "streams": run.streams, **asdict(run.figures)} for run in runs],
    }
