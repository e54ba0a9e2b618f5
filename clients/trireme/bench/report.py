"""The figures of runs as a table, one column a run, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from trireme.bench.runs import Plan, Run
from trireme_proto.load import Figures, Percentiles

Line = tuple[str, Callable[[Figures], str]]


def table(runs: Sequence[Run]) -> Table:
    """All runs side by side."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    made.add_row("load", *(f"{r.streams} streams" if r.rate is None else f"{r.rate:g} requests/s" for r in runs))
    for name, shown in _LINES:
        made.add_row(name, *(shown(run.figures) for run in runs))
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


def _percentiles(of: Callable[[Figures], Percentiles]) -> Callable[[Figures], str]:
    def shown(found: Figures) -> str:
        values = of(found)
        return " / ".join("-" if value is None else _time(value) for value in (values.p50, values.p90, values.p99))

    return shown


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _failed(found: Figures) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in found.failed.items()) or "0"


_LINES: tuple[Line, ...] = (
    ("requests", lambda f: f"{f.requests} in {f.seconds:.1f} s"),
    ("completed", lambda f: str(f.completed)),
    ("refused or failed", _failed),
    ("unfinished", lambda f: str(f.unfinished)),
    ("TTFT p50/p90/p99", _percentiles(lambda f: f.ttft_s)),
    ("ITL p50/p90/p99", _percentiles(lambda f: f.itl_s)),
    ("end to end", _percentiles(lambda f: f.e2e_s)),
    ("sent late by", _percentiles(lambda f: f.sent_late_s)),
    ("tokens/s", lambda f: f"{f.tokens_per_s:.1f}"),
    ("prompt tokens/s", lambda f: f"{f.prompt_tokens_per_s:.1f}"),
    ("requests/s", lambda f: f"{f.requests_per_s:.2f}"),
    ("goodput", lambda f: "-" if f.goodput_per_s is None else f"{f.goodput_per_s:.2f} requests/s"),
    ("stages busy", lambda f: " ".join(_share(stage.utilisation) for stage in f.stages) or "-"),
    ("bubble", lambda f: _share(f.bubble)),
)
