"""`trireme bench decode`: tokens/s of steps at a context, and which share of a plain read of their bytes that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trireme_kernels.isa import ISA
from trireme_worker.bench.bystanders import Bystanders
from trireme_worker.bench.engine import KV_DTYPE, Engine, Made, Weights
from trireme_worker.bench.interleave import ROUNDS, Report, Timing, Trial, Watch, interleaved, silent
from trireme_worker.bench.limits import Limits, Peaks
from trireme_worker.bench.traffic import StepBytes

LAYERS, HEAD = "layers", "head"
CONTEXT = 256


@dataclass(frozen=True)
class Case:
    """What is to be measured.

    layers   timed; fewer than the model's: the time of all is in proportion
    context  positions that a new token attends to, itself included
    batch    sequences that take each step together
    kv       how keys and values are kept: float32, float16 or int8
    """

    threads: int
    layers: int
    context: int = CONTEXT
    batch: int = 1
    rounds: int = ROUNDS
    kv: str = KV_DTYPE


@dataclass(frozen=True)
class DecodeResult:
    """One line of figures; the field names are the JSON keys.

    tokens_per_s     of all sequences together
    bytes_per_token  bytes that a step reads from memory, by the number of its tokens
    read_gb_s        plain read on as many threads, in the same run; read_gb_s_1: on one
    of_read          bytes_per_token * tokens_per_s / read_gb_s; layers_of_read: of the layers alone
    of_vnni_peak     multiply-adds of the ternary layers in the whole time, by the peak of the CPU's dot product
    layers_ms        of all layers, head_ms of the head, in a step of step_ms
    other_cpus       CPUs that other processes kept busy meanwhile
    """

    model: str
    tokens_per_s: float
    bytes_per_token: float
    read_gb_s: float
    of_read: float
    threads: int
    layout: str
    head: str
    kv: str
    isa: str
    context: int
    batch: int
    layers: int
    layers_timed: int
    step_ms: float
    layers_ms: float
    head_ms: float
    layers_of_read: float
    of_vnni_peak: float
    read_gb_s_1: float
    rounds: int
    other_cpus: float


def measure_decode(
    weights: Weights, case: Case, *, limits: Limits, watch: Watch | None = None, report: Report = silent
) -> DecodeResult:
    """Times steps in turns with the limits, which must hold 1 and `case.threads` threads."""
    sequences = {"context": case.context, "batch": case.batch}
    engine = Engine(weights, layers=case.layers, threads=case.threads, kv=case.kv, **sequences)
    bystanders = Bystanders()
    try:
        timings = interleaved(limits.trials() | trials(engine), rounds=case.rounds, watch=watch, report=report)
        sizes = engine.step_bytes()
    finally:
        engine.close()
    return decode_result(weights, case, timings, limits.peaks(timings), sizes, bystanders.cpus())


def trials(engine: Engine, prefix: str = "") -> dict[str, Trial]:
    """Layers and head of a step, right after each other as in real decoding."""
    return {prefix + LAYERS: Trial(engine.run_layers), prefix + HEAD: Trial(engine.run_head)}


def decode_result(
    weights: Made,
    case: Case,
    timings: Mapping[str, Timing],
    peaks: Peaks,
    sizes: StepBytes,
    other_cpus: float,
    prefix: str = "",
) -> DecodeResult:
    """The figures that follow from times and bytes."""
    config = weights.config
    layers_s = timings[prefix + LAYERS].median * config.layers / case.layers
    head_s = timings[prefix + HEAD].median
    step_s, step_bytes = layers_s + head_s, sizes.total(config.layers)
    read, dot = peaks.read_gb_s[case.threads], peaks.dot_gmac_s[case.threads]
    return DecodeResult(
        model=config.name,
        tokens_per_s=case.batch / step_s,
        bytes_per_token=step_bytes / case.batch,
        read_gb_s=read,
        of_read=step_bytes / step_s / 1e9 / read,
        threads=case.threads,
        layout=weights.layout,
        head=weights.head_kind,
        kv=case.kv,
        isa=ISA.name,
        context=case.context,
        batch=case.batch,
        layers=config.layers,
        layers_timed=case.layers,
        step_ms=step_s * 1e3,
        layers_ms=layers_s * 1e3,
        head_ms=head_s * 1e3,
        layers_of_read=config.layers * (sizes.layer + sizes.kv) / layers_s / 1e9 / read,
        of_vnni_peak=config.ternary_parameters * case.batch / step_s / 1e9 / dot,
        read_gb_s_1=peaks.read_gb_s[1],
        rounds=case.rounds,
        other_cpus=other_cpus,
    )
