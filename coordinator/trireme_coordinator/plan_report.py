"""A plan as one object for machines, and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from trireme_coordinator.placement import Plan
from trireme_coordinator.placement.costs import GB
from trireme_coordinator.placement.plan import WhatIf
from trireme_coordinator.placement.predict import Prediction, StagePlan


def plan_json(plan: Plan) -> dict[str, Any]:
    """Everything that a plan says. `layers` of a stage are [first, end); GB are 10**9 bytes."""
    return {
        "model": plan.model.name,
        "prompt": plan.wishes.prompt,
        "context": plan.wishes.context,
        "bytes_per_token": plan.model.read_bytes,
        "fp16_bytes_per_token": plan.model.fp16_bytes,
        "stages": [_stage_json(stage) for stage in plan.prediction.stages],
        "left_out": [asdict(each) for each in plan.left_out],
        **_figures(plan.prediction),
        "batches": [asdict(each) for each in plan.prediction.batches],
        "what_if": [_what_if_json(each) for each in plan.what_if],
    }


def _stage_json(stage: StagePlan) -> dict[str, Any]:
    return {
        "node": stage.node,
        "layers": [stage.layers.start, stage.layers.stop],
        "step_ms": stage.seconds * 1e3,
        "ram_gb": stage.ram_bytes / GB,
        "free_gb": stage.free_bytes / GB,
        "kv_tokens": stage.kv_tokens,
    }


def _figures(prediction: Prediction) -> dict[str, Any]:
    return {
        "tokens_per_s_single": prediction.tokens_per_s_single,
        "tokens_per_s_aggregate": prediction.tokens_per_s_aggregate,
        "ttft_s": prediction.ttft_s,
        "kv_tokens": prediction.kv_tokens,
    }


def _what_if_json(each: WhatIf) -> dict[str, Any]:
    figures = {} if each.prediction is None else _figures(each.prediction)
    return {"change": each.change, "node": each.node, "fits": each.prediction is not None, **figures}


def plan_tables(plan: Plan) -> Sequence[Table]:
    """For people: figures, stages, what was left out, what if."""
    tables = [_overview(plan), _stages(plan)]
    if plan.left_out:
        tables.append(_left_out(plan))
    if plan.what_if:
        tables.append(_what_if(plan))
    return tables


def _columns(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _overview(plan: Plan) -> Table:
    table, found, wishes = Table(show_header=False, box=None, padding=(0, 2, 0, 0)), plan.prediction, plan.wishes
    best = max(found.batches, key=lambda each: each.tokens_per_s)
    table.add_row("model", plan.model.name)
    table.add_row("one stream", f"{found.tokens_per_s_single:.2f} tokens/s at {wishes.context} positions")
    table.add_row("all streams", f"{best.tokens_per_s:.2f} tokens/s with {best.sequences} at once")
    table.add_row("first token", f"{found.ttft_s:.2f} s after a prompt of {wishes.prompt} tokens")
    table.add_row("KV", f"{found.kv_tokens:,} tokens, all streams together")
    return table


def _stages(plan: Plan) -> Table:
    table = _columns("stage", "node", "layers", "step", "memory", "free for KV", "KV tokens")
    for i, stage in enumerate(plan.prediction.stages):
        layers = f"{stage.layers.start}-{stage.layers.stop - 1}"
        sizes = f"{stage.ram_bytes / GB:.2f} GB", f"{stage.free_bytes / GB:.2f} GB"
        table.add_row(str(i), stage.node, layers, f"{stage.seconds * 1e3:.2f} ms", *sizes, f"{stage.kv_tokens:,}")
    return table


def _left_out(plan: Plan) -> Table:
    table = _columns("left out", "spare", "why")
    for each in plan.left_out:
        table.add_row(each.node, "yes" if each.spare else "no", each.reason)
    return table


def _what_if(plan: Plan) -> Table:
    table = _columns("what if", "one stream", "all streams", "first token", "KV tokens")
    for each in plan.what_if:
        what = f"another {each.node}" if each.change == "add" else f"without {each.node}"
        found = each.prediction
        if found is None:
            table.add_row(what, "does not fit", "-", "-", "-")
            continue
        rates = f"{found.tokens_per_s_single:.2f}/s", f"{found.tokens_per_s_aggregate:.2f}/s"
        table.add_row(what, *rates, f"{found.ttft_s:.2f} s", f"{found.kv_tokens:,}")
    return table
