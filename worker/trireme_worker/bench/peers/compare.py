"""`trireme bench peers`: our kernels and llama.cpp's TQ1_0 and TQ2_0 on one shape, in turns.

Ours computes the shape as it is; llama.cpp the same sizes in the Llama architecture, which adds no work (no sub-norms).
Its files are made in a folder that is removed at the end. Each line of the result is one interleaved run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trireme_kernels.isa import ISA
from trireme_kernels.packing import preferred_layout
from trireme_worker.bench import memory
from trireme_worker.bench.bystanders import Bystanders
from trireme_worker.bench.engine import Engine, Weights
from trireme_worker.bench.interleave import Report, Timing, Trial, Watch, interleaved
from trireme_worker.bench.peers.gguf_file import FORMATS, Format, check_widths, write_model
from trireme_worker.bench.peers.llama import LlamaModel, LlamaStep
from trireme_worker.bench.random_weights import RandomPack
from trireme_worker.pack import ModelConfig
from trireme_worker.synth.shapes import shape

OURS = "trireme"
_BYTES_PER_WEIGHT = 0.72
"""Of all three models together: 0.2 to 0.25 ours, 0.21 and 0.26 theirs."""
_BYTES_PER_TABLE_ENTRY = 6.8
"""A bfloat16 table and a head of int8 and 4 bits of ours, two Q6_K tables in each of their two files."""


@dataclass(frozen=True)
class Plan:
    """What is to be compared."""

    threads: tuple[int, ...]
    batches: tuple[int, ...]
    context: int
    prompt: int
    rounds: int
    formats: tuple[Format, ...] = FORMATS


@dataclass(frozen=True)
class Work:
    """One line: decode steps of `batch` sequences at a context, or a prefill of as many tokens."""

    what: str
    threads: int
    context: int
    count: int
    batch: int

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.count * self.batch


@dataclass(frozen=True)
class PeerLine:
    """A line of the result; the field names are the JSON keys.  `over`: our tokens/s by theirs."""

    model: str
    what: str
    threads: int
    context: int
    batch: int
    tokens_per_s: Mapping[str, float]
    over: Mapping[str, float]
    layout: str
    isa: str
    rounds: int
    other_cpus: float


def works(plan: Plan) -> Iterator[Work]:
    """Every line, in order: decode, batched decode, prefill; on each number of threads."""
    for threads in plan.threads:
        for batch in dict.fromkeys((1, *plan.batches)):
            yield Work("decode", threads, plan.context, 1, batch)
        yield Work("prefill", threads, plan.prompt, plan.prompt, 1)


def compare(names: Sequence[str], plan: Plan, report: Report, watch: Watch | None = None) -> Iterator[PeerLine]:
    """The lines of each shape as they are measured.  ConfigurationError for a shape that cannot be compared here."""
    configs = [shape(name) for name in names]
    for config in configs:
        check_widths(config)
        _check_memory(config)
    for config in configs:
        with _models(config, plan.formats, report) as (weights, peers):
            for work in works(plan):
                yield _line(weights, peers, work, plan.rounds, report, watch)


def result(config: ModelConfig, layout: str, work: Work, timings: Mapping[str, Timing], other_cpus: float) -> PeerLine:
    """The figures that follow from times."""
    speeds = {name: work.tokens / timing.median for name, timing in timings.items()}
    over = {name: speeds[OURS] / speed for name, speed in speeds.items() if name != OURS}
    rounds = len(timings[OURS].seconds)
    where = config.name, work.what, work.threads, work.context, work.batch
    return PeerLine(*where, speeds, over, layout, ISA.name, rounds, other_cpus)


def _line(
    weights: Weights,
    peers: Mapping[str, LlamaModel],
    work: Work,
    rounds: int,
    report: Report,
    watch: Watch | None,
) -> PeerLine:
    sizes = {"threads": work.threads, "context": work.context, "count": work.count, "batch": work.batch}
    label = f"{weights.config.name}, {work.what} x {work.tokens}, {work.threads} threads"
    report(0, 1, f"{label}: filling the caches")
    bystanders = Bystanders()
    with ExitStack() as stack:
        engine = Engine(weights, layers=weights.config.layers, kv="float16", **sizes)  # as llama.cpp keeps them
        stack.callback(engine.close)
        trials = {OURS: Trial(engine.run_step)}
        trials |= {name: stack.enter_context(LlamaStep(model, **sizes)).trial() for name, model in peers.items()}
        timings = interleaved(
            trials, rounds=rounds, watch=watch, report=lambda done, total, what: report(done, total, f"{label}: {what}")
        )
    return result(weights.config, weights.layout, work, timings, bystanders.cpus())


@contextmanager
def _models(
    config: ModelConfig, formats: Sequence[Format], report: Report
) -> Iterator[tuple[Weights, Mapping[str, LlamaModel]]]:
    with tempfile.TemporaryDirectory(prefix="trireme-bench-") as folder, ExitStack() as stack:
        peers = {}
        for kind in formats:
            path = Path(folder) / f"{kind}.gguf"
            write_model(path, config, kind, report=report)
            peers[f"llama.cpp {kind}"] = stack.enter_context(LlamaModel(path, config))
        yield RandomPack(config, preferred_layout(), report=report), peers


def _check_memory(config: ModelConfig) -> None:
    tables = config.vocabulary * config.hidden_size
    needed = _BYTES_PER_WEIGHT * config.ternary_parameters + _BYTES_PER_TABLE_ENTRY * tables + memory.GIB
    memory.require(f"{config.name} in all three formats", needed)
