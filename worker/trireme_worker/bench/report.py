"""What people see of a measurement: tables. Machines get the same figures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from trireme_kernels.isa import Choice
from trireme_worker.bench.bystanders import BUSY
from trireme_worker.bench.decode import DecodeResult
from trireme_worker.bench.limits import Peaks
from trireme_worker.bench.prefill import PrefillResult
from trireme_worker.bench.targets import Line


def decode_table(result: DecodeResult) -> Table:
    """The figures of a decode, one a line."""
    table = _figures(f"decode, {result.model}")
    each = " each" if result.batch > 1 else ""
    table.add_row("tokens/s", f"{result.tokens_per_s:.1f}", _scaled(result.layers_timed, result.layers))
    table.add_row("a step", f"{result.step_ms:.2f} ms", f"layers {result.layers_ms:.2f}, head {result.head_ms:.2f}")
    table.add_row("sequences", str(result.batch), f"at {result.context} positions{each}")
    table.add_row(
        "bytes a token",
        f"{result.bytes_per_token / 1e6:.1f} MB",
        f"{result.layout} weights, {result.head} head, {result.kv} keys and values",
    )
    table.add_row("plain read", f"{result.read_gb_s:.1f} GB/s", f"{result.read_gb_s_1:.1f} on one thread")
    table.add_row("of plain read", _share(result.of_read), f"layers alone {_share(result.layers_of_read)}")
    table.add_row("of dot product peak", _share(result.of_vnni_peak), result.isa)
    return _ending(table, result.threads, result.rounds)


def prefill_table(result: PrefillResult) -> Table:
    """The figures of a prefill, one a line."""
    table = _figures(f"prefill, {result.model}")
    table.add_row("tokens/s", f"{result.tokens_per_s:.1f}", _scaled(result.layers_timed, result.layers))
    table.add_row("the prompt", f"{result.prefill_ms:.1f} ms", f"{result.tokens} tokens")
    table.add_row("ternary layers", f"{result.gmac_s:.1f} GMAC/s", f"{result.layout} weights")
    table.add_row("dot product peak", f"{result.vnni_peak_gmac_s:.1f} GMAC/s", result.isa)
    table.add_row("of dot product peak", _share(result.of_vnni_peak), "the whole prefill's time")
    return _ending(table, result.threads, result.rounds)


def busy_note(other_cpus: float) -> str | None:
    """A sentence on what else the machine was doing, if it matters."""
    if other_cpus < BUSY:
        return None
    return f"Other processes kept {other_cpus:.1f} CPUs busy meanwhile: times are too long, ratios are less exact."


def _figures(title: str) -> Table:
    return Table("", "median", "", title=title, title_justify="left", show_header=False)


def _ending(table: Table, threads: int, rounds: int) -> Table:
    table.add_row("threads", str(threads), f"medians of {rounds} rounds, interleaved with the limits")
    return table


def _share(value: float) -> str:
    return f"{value:.2f}"


def _scaled(timed: int, layers: int) -> str:
    return f"{timed} of {layers} layers timed, the others in proportion" if timed < layers else ""


def columns(title: str, names: Sequence[str]) -> Table:
    """An empty table with a title."""
    return Table(*names, title=title, title_justify="left")


def kernels_table(found: Sequence[Line]) -> Table:
    """The table of targets: goal, measured, and whether met."""
    table = columns("targets", ("", "goal", "measured", ""))
    for line in found:
        target = line.target
        goal = "-" if target.goal is None else f"{'>=' if target.at_least else '<='} {target.goal:g} {target.unit}"
        if line.measured is None:
            table.add_row(target.what, goal.rstrip(), "-", line.why_not)
        else:
            measured = f"{line.measured:.2f} {target.unit}".rstrip()
            table.add_row(target.what, goal.rstrip(), measured, {True: "met", False: "missed", None: ""}[line.met])
    return table


def dispatch_table(choices: Sequence[Choice]) -> Table:
    """Every way to compute, the chosen one marked, and why."""
    table = columns("dispatch", ("path", "", "why"))
    for choice in choices:
        table.add_row(choice.name, "chosen" if choice.chosen else "", choice.reason)
    return table


def limits_table(peaks: Peaks) -> Table:
    """The machine's limits by threads."""
    table = columns("limits of this machine", ("threads", "plain read", "dot product"))
    for n in peaks.read_gb_s:
        table.add_row(str(n), f"{peaks.read_gb_s[n]:.1f} GB/s", f"{peaks.dot_gmac_s[n]:.0f} GMAC/s")
    return table


def peers_table(found: Sequence[Any]) -> Table:
    """Tokens/s side by side, and ours over each of theirs."""
    names = list(found[0].tokens_per_s)
    ratios = [f"over {name.split()[-1]}" for name in found[0].over]
    table = columns("tokens/s", ("model", "", "threads", "sequences", "context", *names, *ratios))
    for line in found:
        speeds = [f"{line.tokens_per_s[name]:.1f}" for name in names]
        over = [f"{ratio:.2f}x" for ratio in line.over.values()]
        sizes = str(line.threads), str(line.batch), str(line.context)
        table.add_row(line.model, line.what, *sizes, *speeds, *over)
    return table
