"""How well the real pipeline keeps stages of modelled compute busy, beside the ideal and beside the simulation.

single    one stream alone: what a hop costs here beyond the stages' own time. The simulation is told this, and
          nothing else that is measured
decode    several streams: tokens/s over the ideal, in which no stage ever waits
prefill   one long prompt over all stages, over the time of one stage that does all the work
load      requests that come at random: latencies and tokens/s
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from trireme_coordinator.bench.harness import harness
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.simulation import FixedStage, Pipeline, simulate
from trireme_proto.load import Arrival, Figures, Mix, Record, figures, poisson
from trireme_worker.pack import ModelConfig

_SLOTS = 256
_PAGES = 1 << 14
_ALONE_TOKENS = 20
_LOAD_USE = 0.6
"""Of what the stages can decode at most: the rate of the random load."""
Report = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    stages: int
    streams: int
    step_s: float
    """That each stage takes for a micro-batch, at least: reading its weights."""
    token_s: float
    """That each stage takes for a prompt token where the weights' reading does not count: computing."""
    tokens: int
    """Of each stream's answer."""
    prompt: int
    """Tokens of the long prompt; 0: no prefill."""
    prefill_chunk: int
    load_seconds: float
    """Of random arrivals; 0: none."""
    seed: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of the real pipeline beside that of the simulation."""

    measured: float
    simulated: float
    error: float
    """simulated / measured - 1"""


@dataclass(frozen=True, slots=True)
class Result:
    """The figures; see the module. None: was not asked for."""

    stages: int
    streams: int
    step_ms: float
    hop_ms: float
    tokens_per_s: Compared
    ideal_tokens_per_s: float
    of_ideal: float
    prefill_s: Compared | None
    one_stage_prefill_s: float | None
    of_one_stage: float | None
    load: dict[str, Compared] | None


async def measure(shape: ModelConfig, plan: Plan, report: Report) -> Result:
    """All figures of a plan; frames are as large as those of `shape`."""
    report("one stream alone")
    decoding = _pipeline(plan, FixedStage(plan.step_s, 0.0))
    alone = await _run(shape, decoding, _streams(1, min(plan.tokens, _ALONE_TOKENS)))
    hop = max(0.0, median(alone[0].itl) - plan.stages * plan.step_s) / (plan.stages + 1)
    report(f"{plan.streams} streams")
    streams = _streams(plan.streams, plan.tokens)
    rates = [_steady(await _run(shape, decoding, streams)), _steady(_simulated(decoding, hop, streams))]
    ideal = plan.streams / (plan.stages * plan.step_s)
    prefill, whole = await _prefill(shape, plan, hop, report)
    return Result(
        stages=plan.stages,
        streams=plan.streams,
        step_ms=plan.step_s * 1e3,
        hop_ms=hop * 1e3,
        tokens_per_s=_compared(*rates),
        ideal_tokens_per_s=ideal,
        of_ideal=rates[0] / ideal,
        prefill_s=prefill,
        one_stage_prefill_s=whole,
        of_one_stage=prefill.measured / whole if prefill and whole else None,
        load=await _load(shape, plan, decoding, hop, report) if plan.load_seconds else None,
    )


async def _prefill(shape: ModelConfig, plan: Plan, hop: float, report: Report) -> tuple[Compared | None, float | None]:
    """Time to first token of a long prompt over all stages, and over one stage that does the work of all."""
    if not plan.prompt:
        return None, None
    arrivals = [Arrival(0.0, plan.prompt, 1, 0)]
    report(f"a prompt of {plan.prompt} tokens over {plan.stages} stages")
    many = _pipeline(plan, FixedStage(0.0, plan.token_s))
    measured = (await _run(shape, many, arrivals))[0].ttft
    report(f"a prompt of {plan.prompt} tokens over one stage")
    one = Pipeline(_config(1, plan), [FixedStage(0.0, plan.token_s * plan.stages)])
    whole = (await _run(shape, one, arrivals))[0].ttft
    return _compared(measured, _simulated(many, hop, arrivals)[0].ttft), whole


async def _load(shape: ModelConfig, plan: Plan, pipeline: Pipeline, hop: float, report: Report) -> dict[str, Compared]:
    """A random load in reality and in the simulation."""
    report(f"random requests for {plan.load_seconds:g} s")
    prompt, output = Mix.parse("16-256", "prompt"), Mix.parse("8-24", "output")
    rate = _LOAD_USE / (plan.step_s * output.mean)  # a stage computes each token of an answer on its own, at worst
    arrivals = poisson(rate, prompt=prompt, output=output, seed=plan.seed, seconds=plan.load_seconds)
    real, simulated = await _run(shape, pipeline, arrivals), _simulated(pipeline, hop, arrivals)
    a, b = _figures(real), _figures(simulated)
    pairs = {
        "tokens/s": (a.tokens_per_s, b.tokens_per_s),
        "TTFT p50, s": (a.ttft_s.p50, b.ttft_s.p50),
        "TTFT p90, s": (a.ttft_s.p90, b.ttft_s.p90),
        "ITL p50, s": (a.itl_s.p50, b.itl_s.p50),
        "end to end p50, s": (a.e2e_s.p50, b.e2e_s.p50),
    }
    return {name: _compared(x, y) for name, (x, y) in pairs.items() if x is not None and y is not None}


async def _run(shape: ModelConfig, pipeline: Pipeline, arrivals: Sequence[Arrival]) -> list[Record]:
    async with harness(shape, pipeline.stages, pipeline.config) as running:
        return await running.run(arrivals)


def _simulated(pipeline: Pipeline, hop: float, arrivals: Sequence[Arrival]) -> tuple[Record, ...]:
    """The same with a hop's cost before, between and after the stages."""
    stages = [FixedStage(s.step_s, s.token_s, hop) for s in pipeline.stages if isinstance(s, FixedStage)]
    return simulate([Pipeline(pipeline.config, stages, hop)], arrivals).records


def _pipeline(plan: Plan, stage: FixedStage) -> Pipeline:
    return Pipeline(_config(plan.stages, plan), [stage] * plan.stages)


def _config(stages: int, plan: Plan) -> SchedulerConfig:
    return SchedulerConfig(
        stages=stages, slots=_SLOTS, pages=_PAGES, context=8192, prefill_chunk=plan.prefill_chunk, queue=_SLOTS
    )


def _streams(count: int, tokens: int) -> list[Arrival]:
    return [Arrival(0.0, 1, tokens, seed) for seed in range(count)]


def _steady(records: Sequence[Record]) -> float:
    """Tokens/s while every stream decodes: from the last one's second token to the first one's last."""
    begin, end = max(r.times[1] for r in records), min(r.times[-1] for r in records)
    return sum(begin < time <= end for record in records for time in record.times) / max(end - begin, 1e-9)


def _figures(records: Sequence[Record]) -> Figures:
    return figures(records, started=0.0, ended=max(r.ended or 0.0 for r in records))


def _compared(measured: float, simulated: float) -> Compared:
    return Compared(measured, simulated, simulated / measured - 1 if measured else 0.0)
