"""`trireme bench kernels`: everything that the table of targets asks for, section by section.

Each section is one interleaved run with the limits in it; its ratios are of that run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from trireme_kernels.isa import ISA, Choice, isa_table
from trireme_kernels.packing import preferred_layout
from trireme_proto.errors import ConfigurationError
from trireme_worker.bench import compile_time, contention, products
from trireme_worker.bench.bystanders import Bystanders
from trireme_worker.bench.decode import Case, decode_result, trials
from trireme_worker.bench.engine import Engine
from trireme_worker.bench.interleave import Report, Timing, Trial, interleaved
from trireme_worker.bench.limits import Limits, Peaks
from trireme_worker.bench.models import find
from trireme_worker.bench.random_weights import random_head
from trireme_worker.bench.targets import Line, lines
from trireme_worker.head import OutputHead
from trireme_worker.team import Team

LONG_CONTEXT = 4096
HEAD_SHAPE = 128_256, 2_560
"""Rows and columns of the head of 2b4t."""
ATTENTION = {
    "int8": "attention_4096_ms",
    "float16": "attention_4096_float16_ms",
    "float32": "attention_4096_float32_ms",
}
"""Keys of the table by how keys and values are kept."""


@dataclass(frozen=True)
class Setting:
    """What all sections share.  `limits` holds 1 and `threads` threads."""

    threads: int
    rounds: int
    limits: Limits
    report: Report


@dataclass
class Found:
    """What a section measured, by the keys of `targets.py`, and why it has no figure for a key."""

    measured: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def _products(setting: Setting) -> Found:
    with products.Products((1, setting.threads)) as work:
        timings = _timed(setting, work.trials())
    peaks = setting.limits.peaks(timings)
    return Found(*products.figures(timings, peaks))


def _decode(setting: Setting) -> Found:
    return _shares(setting, "2b4t", "decode_of_read")


def _layers_70b(setting: Setting) -> Found:
    return _shares(setting, "70b", "layers_70b_of_read")


def _shares(setting: Setting, model: str, key: str) -> Found:
    """A decode step on one thread and on all: the share of a plain read, of the whole step or of its layers."""
    weights, layers = find(model, None, setting.report)
    found = Found()
    cases = {"1": Case(1, layers, rounds=setting.rounds), "all": Case(setting.threads, layers, rounds=setting.rounds)}
    engines = {
        name: Engine(weights, layers=layers, threads=case.threads, context=case.context) for name, case in cases.items()
    }
    try:
        work = {n: t for name, engine in engines.items() for n, t in trials(engine, f"{model}, {name}: ").items()}
        timings = _timed(setting, work)
        peaks = setting.limits.peaks(timings)
        for name, case in cases.items():
            sizes = engines[name].step_bytes()
            result = decode_result(weights, case, timings, peaks, sizes, 0.0, f"{model}, {name}: ")
            found.measured[f"{key}_{name}"] = result.layers_of_read if "layers" in key else result.of_read
    finally:
        for engine in engines.values():
            engine.close()
    return found


def _attention(setting: Setting) -> Found:
    """The time that a layer takes longer at 4,096 positions than at one, on one thread, for all layers."""
    weights, layers = find("2b4t", None, setting.report)
    found = Found()
    for kv, key in ATTENTION.items():
        near, far = (Engine(weights, layers=layers, threads=1, context=c, kv=kv) for c in (1, LONG_CONTEXT))
        work = {f"1 position, {kv}": Trial(near.run_layers), f"4,096 positions, {kv}": Trial(far.run_layers)}
        try:
            timings = _timed(setting, work)
        finally:
            near.close()
            far.close()
        one, many = (timings[name].median for name in work)
        found.measured[key] = (many - one) * 1e3 * weights.config.layers / layers
    return found


def _head(setting: Setting) -> Found:
    """The largest logit of a token on one thread, by an int8 head and by the same behind a 4-bit first pass."""
    rows, cols = HEAD_SHAPE
    setting.report(0, 1, "random weights, head")
    head = random_head(np.random.default_rng(0), rows, cols, "int8+4bit")
    team, gain = Team(1), np.ones(cols, np.float32)
    hidden = np.random.default_rng(1).standard_normal((1, cols), np.float32)
    both = (OutputHead(each, gain, 1e-5, team) for each in (replace(head, codes=None, dither=None), head))
    work = {name: Trial(partial(each.largest, hidden, [1])) for name, each in zip(("int8", "4bit"), both, strict=True)}
    try:
        timings = _timed(setting, work)
    finally:
        team.close()
    return Found({"head_4bit_over_int8": timings["int8"].median / timings["4bit"].median})


def _contention(setting: Setting) -> Found:
    if setting.threads == 1:
        return Found({}, {"contended_speedup": "there is one CPU"})
    weights, layers = find("2b4t", None, setting.report)
    return Found(
        {"contended_speedup": contention.speedup(weights, layers, setting.threads, setting.rounds, setting.report)}
    )


def _compile(setting: Setting) -> Found:
    cold, cached = compile_time.cold_and_cached(setting.rounds, setting.report)
    return Found({"cold_compile_s": cold, "cached_start_s": cached})


SECTIONS: Mapping[str, Callable[[Setting], Found]] = {
    "products": _products,
    "decode": _decode,
    "70b": _layers_70b,
    "head": _head,
    "attention": _attention,
    "contention": _contention,
    "compile": _compile,
}
"""By the names that `--only` takes."""


@dataclass(frozen=True)
class KernelsResult:
    """What `trireme bench kernels` prints.  `peaks`: the limits, before the first section."""

    isa: str
    layout: str
    threads: int
    rounds: int
    dispatch: tuple[Choice, ...]
    peaks: Peaks
    lines: tuple[Line, ...]
    other_cpus: float

    def to_json(self) -> dict[str, Any]:
        """Everything, with `met` for each target."""
        targets = [asdict(line.target) | {"measured": line.measured, "met": line.met} for line in self.lines]
        for value, line in zip(targets, self.lines, strict=True):
            value["why_not"] = None if line.met is not None else line.why_not
        return {f: v for f, v in asdict(self).items() if f != "lines"} | {"targets": targets}


def measure_kernels(threads: int, only: Sequence[str], rounds: int, report: Report) -> KernelsResult:
    """Measures the sections named in `only`, or all.  Raises ConfigurationError for a name that is none."""
    if unknown := [name for name in only if name not in SECTIONS]:
        raise ConfigurationError(f"--only: {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    bystanders = Bystanders()
    measured: dict[str, float] = {}
    missing: dict[str, str] = {}
    with Limits((1, threads)) as limits:
        peaks = limits.peaks(interleaved(limits.trials(), rounds=rounds, report=_named("limits", report)))
        for name in only or SECTIONS:
            found = SECTIONS[name](Setting(threads, rounds, limits, _named(name, report)))
            measured |= found.measured
            missing |= found.missing
    choice = tuple(isa_table())
    table = lines(measured, missing)
    return KernelsResult(ISA.name, preferred_layout(), threads, rounds, choice, peaks, table, bystanders.cpus())


def _named(section: str, report: Report) -> Report:
    return lambda done, total, what: report(done, total, f"{section}: {what}")


def _timed(setting: Setting, work: Mapping[str, Trial]) -> dict[str, Timing]:
    return interleaved(setting.limits.trials() | dict(work), rounds=setting.rounds, report=setting.report)
