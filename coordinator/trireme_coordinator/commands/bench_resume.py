"""`trireme bench resume`: a session that no stage holds any more, restored or computed again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from trireme_worker.commands.bench import AsJson, Kv, Model, cpus, progress, show

if TYPE_CHECKING:
    from rich.table import Table

    from trireme_coordinator.bench.resume import Result


def bench_resume(
    model: Model,
    tokens: Annotated[int, typer.Option(min=64, max=1 << 20, help="Of the session.")] = 2000,
    stages: Annotated[int, typer.Option(min=1, max=64, help="Stages, all in this process.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, max=128, help="Kernel threads of each stage. Default: the CPUs, shared.")
    ] = None,
    kv: Kv = "float32",
    rounds: Annotated[int, typer.Option(min=1, max=101, help="Medians are taken over so many rounds.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time a session's next request when its KV pages come from Redis, beside computing them again."""
    from trireme_coordinator.bench.resume import Plan, measure
    from trireme_worker.bench.models import find
    from trireme_worker.pack import Pack

    with progress() as bar:
        weights, layers = find(model, None, bar)
        sha256 = weights.sha256 if isinstance(weights, Pack) else ""
        plan = Plan(stages, threads or max(1, cpus() // stages), tokens, kv, rounds)
        result = asyncio.run(measure(weights, layers, sha256, plan, bar))
    show(asdict(result), [_table(result)], as_json, None)


def _table(result: Result) -> Table:
    from rich.table import Table

    table = Table("", "time to first token", "", box=None, padding=(0, 2, 0, 0))
    table.add_row("prefill", f"{result.ttft_prefill_s:.3f} s", f"{result.tokens} tokens computed again")
    read = f"{result.restored_tokens} tokens, {result.bytes / 1e6:.1f} MB at {result.bytes_per_s / 1e6:.0f} MB/s"
    table.add_row("restore", f"{result.ttft_restore_s:.3f} s", read)
    table.add_row("", f"{result.speedup:.1f} times", f"a server chooses: {result.quicker}")
    return table
