"""`trireme status`: what runs where, and how full it is."""

from __future__ import annotations

import dataclasses

from rich.table import Table
from rich.text import Text

from trireme import Client, Stage, Status
from trireme.cli import options, output


def status(target: options.Target = None, timeout: options.Timeout = None, as_json: options.AsJson = False) -> None:
    """Show what runs where, and how full it is."""
    with Client(target) as client:
        state = client.status(timeout=timeout)
        if as_json:
            output.write_json(dataclasses.asdict(state))
            return
        output.write_table(_overview(client.target, state))
        output.write_table(_stages(state.stages))


def _overview(target: str, state: Status) -> Table:
    table = output.pairs()
    model, load = state.model, state.load
    table.add_row("server", f"{target}, version {state.version}")
    table.add_row("coordinator", _role(state))
    table.add_row("pipeline", f"{'ready' if state.ready else 'not ready'}, epoch {state.epoch}")
    if state.reason:
        table.add_row("not ready", Text(state.reason, style="red"))
    table.add_row("recoveries", _recoveries(state))
    table.add_row("sessions", "store answers" if state.session_store_ok else Text("store does not answer", style="red"))
    table.add_row(
        "model",
        f"{model.name}: {model.layers} layers of {model.hidden_size}, {model.parameters / 1e6:.1f}M parameters,"
        f" {model.layout}, context {model.context}, vocabulary {model.vocabulary}",
    )
    table.add_row(
        "load",
        f"{load.running} running, {load.waiting} of at most {load.queue_limit} waiting,"
        f" {load.kv_pages_reserved} of {load.kv_pages_total} KV pages reserved, {load.sessions_cached} sessions cached",
    )
    return table


def _role(state: Status) -> str:
    if state.leading:
        return "leads" if state.leader else "the only one"
    return f"stands by; {state.leader or 'nobody'} leads"


def _recoveries(state: Status) -> str:
    if (last := state.last_recovery) is None:
        return str(state.recoveries)
    lost = ", ".join(map(str, last.stages)) or "none"
    return (
        f"{state.recoveries}; the last one: cause {last.cause}, stages lost {lost}, {last.method},"
        f" detected in {last.detection_seconds:.2f} s, rebuilt in {last.rebuild_seconds:.2f} s,"
        f" {last.sequences} requests, {last.tokens} tokens to compute again"
    )


def _stages(stages: tuple[Stage, ...]) -> Table:
    table = output.columns("stage", "layers", "node", "threads", "KV pages", "slots", "busy", "memory", "intact")
    for stage in stages:
        table.add_row(
            str(stage.stage),
            f"{stage.first_layer}-{stage.end_layer - 1}",
            stage.node,
            str(stage.threads),
            f"{stage.kv_pages_used}/{stage.kv_pages_total}",
            str(stage.slots_used),
            f"{stage.busy_seconds:.1f} s",
            f"{stage.rss_bytes / (1 << 20):.0f} MiB",
            "yes" if stage.integrity_ok else Text("no", style="red"),
        )
    return table
