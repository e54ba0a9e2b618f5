"""What a run showed, for machines and for people. Pure but for the two files that it writes."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.fault.checker import Violation, calls_of
from tests.fault.history import CallEnded, Event, FaultBegan, Probe, Tokens
from tests.fault.rates import recoveries, standstills


def report(
    history: Sequence[Event], violations: Sequence[Violation], span: tuple[float, float], run: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures. `run`: what was run, taken over as it is; `span`: when the clients began and ended."""
    ended = [e for e in history if isinstance(e, CallEnded)]
    return dict(run) | {
        "faults": dict(sorted(Counter(e.kind for e in history if isinstance(e, FaultBegan)).items())),
        "calls": len(calls_of(history)),
        "statuses": dict(Counter(e.status for e in ended).most_common()),
        "tokens": sum(len(e.ids) for e in history if isinstance(e, Tokens)),
        "old_epoch_offers": sum(isinstance(e, Probe) for e in history),
        "standstill_seconds": _by_kind(history),
        "throughput_recovery": _recovery(history, span),
        "violations": [asdict(violation) for violation in violations],
    }


def _by_kind(history: Sequence[Event]) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {}
    for fault, seconds in standstills(history):
        found.setdefault(fault.kind, []).append(seconds)
    return {kind: quantiles(values) for kind, values in sorted(found.items())}


def _recovery(history: Sequence[Event], span: tuple[float, float]) -> dict[str, float]:
    judged = [r for r in recoveries(history, *span) if r.judged]
    return {"bursts": len(judged)} | quantiles([r.seconds for r in judged if r.seconds is not None])


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum; nothing of nothing."""
    if not values:
        return {}
    cuts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return {"n": len(values), "p50": round(cuts[9], 2), "p95": round(cuts[18], 2), "max": round(max(values), 2)}


def markdown(figures: Mapping[str, Any]) -> str:
    """The same as a page."""
    parts = [_summary(figures), _table(figures), _back(figures["throughput_recovery"]), _left_out(figures["left_out"])]
    parts.append("\n".join(f"- **{v['invariant']}** at {v['t']:.1f} s: {v['sentence']}" for v in figures["violations"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(figures: Mapping[str, Any]) -> str:
    shape, statuses = figures["shape"], ", ".join(f"{n} {status}" for status, n in figures["statuses"].items())
    faults, violations = sum(figures["faults"].values()), len(figures["violations"])
    return f"""# Faults injected into a running cluster

`{figures["command"]}`: {faults} faults in {figures["seconds"] / 60:.1f} minutes, **{violations} violations**.

{figures["clients"]} clients, {shape["stages"]} stages, {shape["nodes"]} nodes, {shape["coordinators"]} coordinator(s):
{figures["calls"]} calls ({statuses}), {figures["tokens"]} tokens delivered, each compared with the undisturbed answer;
{figures["old_epoch_offers"]} offers of work of an old epoch."""


def _table(figures: Mapping[str, Any]) -> str:
    lines = ["| fault | times | of them alone | streams stood still, s: p50 | p95 | max |", "|---|---|---|---|---|---|"]
    for kind, n in figures["faults"].items():
        still = figures["standstill_seconds"].get(kind, {})
        cells = [str(still.get(name, "")) for name in ("n", "p50", "p95", "max")]
        lines.append(f"| {kind} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _back(back: Mapping[str, float]) -> str:
    if "p50" not in back:
        return ""
    return (
        f"Seconds from healing until 95 % of the undisturbed rate, over {back['bursts']} bursts of up to three faults: "
        f"p50 {back['p50']}, p95 {back['p95']}, max {back['max']}."
    )


def _left_out(reasons: Mapping[str, str]) -> str:
    return f"Left out: {'; '.join(f'{kind} ({why})' for kind, why in reasons.items()) or 'nothing'}."


def write(figures: Mapping[str, Any], path: Path) -> None:
    """PATH, and beside it the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(figures))
