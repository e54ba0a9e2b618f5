"""`trireme bench prefill`: tokens/s of a prompt's first pass, and which share of the dot product's peak that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trireme_kernels.isa import ISA
from trireme_worker.bench.bystanders import Bystanders
from trireme_worker.bench.decode import HEAD, LAYERS, trials
from trireme_worker.bench.engine import KV_DTYPE, Engine, Made, Weights
from trireme_worker.bench.interleave import ROUNDS, Report, Timing, Watch, interleaved, silent
from trireme_worker.bench.limits import Limits, Peaks

TOKENS = 512


@dataclass(frozen=True)
class Case:
    """What is to be measured: `layers` timed (the time of all is in proportion), `tokens` of the prompt, and keys and
    values kept as `kv`.
    """

    threads: int
    layers: int
    tokens: int = TOKENS
    rounds: int = ROUNDS
    kv: str = KV_DTYPE


@dataclass(frozen=True)
class PrefillResult:
    """One line of figures; the field names are the JSON keys.

    tokens_per_s  of the prompt, with the head for its last token
    gmac_s        multiply-adds of the ternary layers in the whole time, attention and all else included, 1e9 a second
    of_vnni_peak  gmac_s by the peak of the CPU's dot product (whether it is VNNI's says `isa`), in the same run
    other_cpus    CPUs that other processes kept busy meanwhile
    """

    model: str
    tokens_per_s: float
    gmac_s: float
    of_vnni_peak: float
    vnni_peak_gmac_s: float
    read_gb_s: float
    threads: int
    layout: str
    head: str
    kv: str
    isa: str
    tokens: int
    layers: int
    layers_timed: int
    prefill_ms: float
    rounds: int
    other_cpus: float


def measure_prefill(
    weights: Weights, case: Case, *, limits: Limits, watch: Watch | None = None, report: Report = silent
) -> PrefillResult:
    """Times prefills of an empty sequence in turns with the limits, which must hold `case.threads` threads."""
    prompt = {"context": case.tokens, "count": case.tokens}
    engine = Engine(weights, layers=case.layers, threads=case.threads, kv=case.kv, **prompt)
    bystanders = Bystanders()
    try:
        timings = interleaved(limits.trials() | trials(engine), rounds=case.rounds, watch=watch, report=report)
    finally:
        engine.close()
    return prefill_result(weights, case, timings, limits.peaks(timings), bystanders.cpus())


def prefill_result(
    weights: Made,
    case: Case,
    timings: Mapping[str, Timing],
    peaks: Peaks,
    other_cpus: float,
    prefix: str = "",
) -> PrefillResult:
    """The figures that follow from times."""
    config = weights.config
    seconds = timings[prefix + LAYERS].median * config.layers / case.layers + timings[prefix + HEAD].median
    gmac_s, peak = config.ternary_parameters * case.tokens / seconds / 1e9, peaks.dot_gmac_s[case.threads]
    return PrefillResult(
        model=config.name,
        tokens_per_s=case.tokens / seconds,
        gmac_s=gmac_s,
        of_vnni_peak=gmac_s / peak,
        vnni_peak_gmac_s=peak,
        read_gb_s=peaks.read_gb_s[case.threads],
        threads=case.threads,
        layout=weights.layout,
        head=weights.head_kind,
        kv=case.kv,
        isa=ISA.name,
        tokens=case.tokens,
        layers=config.layers,
        layers_timed=case.layers,
        prefill_ms=seconds * 1e3,
        rounds=case.rounds,
        other_cpus=other_cpus,
    )
