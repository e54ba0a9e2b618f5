"""What holds a pipeline back, out of what two looks at its counters differ by. Pure.

a stage is busy nearly always     that stage: its memory, where it reads weights about as fast as that can be read,
                                  else its arithmetic
else, of a step's way             what takes most of it: computing, hops, or the rest (coordinator and back)
requests wait, stages have time   the queue: too few slots or KV pages
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trireme_coordinator.metrics.steps import StepMeter

_SATURATED = 0.85
"""Share of the time from which a stage has no time left."""
_IDLE = 0.05
"""Share of the time below which there was hardly any work."""
_NEAR = 0.6
"""Of the memory's read rate, from which memory is what a stage waits for: kernels reach 0.9, attention reads too."""


@dataclass(frozen=True, slots=True)
class StageLook:
    """One stage's counters: nanoseconds and bytes."""

    busy_ns: int
    wait_ns: int
    wire_ns: int
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """All counters at one moment."""

    at_ns: int
    steps: int
    tokens: int
    active_ns: int
    step_ns: int
    stages: tuple[StageLook, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """What was asked for, at the end."""

    running: int
    waiting: int
    slots: int
    kv_share: float
    """Of the KV pages, that are promised."""
    bandwidths: Sequence[float]
    """Bytes a second of each stage's memory; 0: not known."""


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One stage between two looks: shares of the active time, seconds of a mean step, bytes a second of computing."""

    busy: float
    bubble: float
    compute_s: float
    wait_s: float
    wire_s: float
    read_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds it back; `stage` where it is one."""

    bottleneck: str
    stage: int | None
    advice: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What happened between two looks."""

    seconds: float
    steps: int
    tokens: int
    active: float
    step_s: float
    other_s: float
    stages: tuple[StageProfile, ...]


def look(meter: StepMeter, at_ns: int) -> Look:
    """The counters now; `at_ns` of any clock."""
    stages = tuple(StageLook(s.busy_ns, s.wait_ns, s.wire_ns, s.weight_bytes) for s in meter.stages)
    return Look(at_ns, meter.count, meter.generation_tokens, meter.active_ns, meter.step_ns, stages)


def profile(first: Look, last: Look) -> Profile:
    """What happened in between."""
    steps, active_ns = last.steps - first.steps, max(1, last.active_ns - first.active_ns)
    none = StageLook(0, 0, 0, 0)
    before = [*first.stages, *(none for _ in last.stages[len(first.stages) :])]
    stages = tuple(_stage(a, b, max(1, steps), active_ns) for a, b in zip(before, last.stages, strict=True))
    step_s = (last.step_ns - first.step_ns) / 1e9 / max(1, steps)
    seconds = max(1, last.at_ns - first.at_ns) / 1e9
    known = sum(s.compute_s + s.wait_s + s.wire_s for s in stages)
    return Profile(
        seconds=seconds,
        steps=steps,
        tokens=last.tokens - first.tokens,
        active=min(1.0, (last.active_ns - first.active_ns) / 1e9 / seconds),
        step_s=step_s,
        other_s=max(0.0, step_s - known),
        stages=stages,
    )


def _stage(first: StageLook, last: StageLook, steps: int, active_ns: int) -> StageProfile:
    busy_ns = last.busy_ns - first.busy_ns
    busy = min(1.0, busy_ns / active_ns)
    return StageProfile(
        busy=busy,
        bubble=1.0 - busy,
        compute_s=busy_ns / 1e9 / steps,
        wait_s=(last.wait_ns - first.wait_ns) / 1e9 / steps,
        wire_s=(last.wire_ns - first.wire_ns) / 1e9 / steps,
        read_bytes_per_s=(last.weight_bytes - first.weight_bytes) / (busy_ns / 1e9) if busy_ns else 0.0,
    )


def verdict(found: Profile, demand: Demand) -> Verdict:
    """What holds the pipeline back, and what to do about it."""
    if not found.steps:
        return _stalled(demand) if demand.running or demand.waiting else _idle()
    if found.active < _IDLE and not demand.waiting:
        return _idle()
    busiest = max(range(len(found.stages)), key=lambda i: found.stages[i].busy)
    if found.stages[busiest].busy >= _SATURATED:
        return _computing(found, busiest, demand, "has no time left")
    if demand.waiting and (demand.running >= demand.slots or demand.kv_share > 1 - _IDLE):
        return _queue(demand)
    return _slowest_part(found, busiest, demand)


def _slowest_part(found: Profile, busiest: int, demand: Demand) -> Verdict:
    """Of a step's way, when no stage is busy all the time."""
    compute, wire = (sum(getattr(s, name) for s in found.stages) for name in ("compute_s", "wire_s"))
    if wire > max(compute, found.other_s):
        return _wire(found)
    if found.other_s > compute:
        return _scheduler(found)
    return _computing(found, busiest, demand, "takes most of a step")


def _computing(found: Profile, stage: int, demand: Demand, why: str) -> Verdict:
    here = found.stages[stage]
    limit = demand.bandwidths[stage] if stage < len(demand.bandwidths) else 0.0
    share = here.read_bytes_per_s / limit if limit else 0.0
    who = f"Stage {stage} {why}"
    if share >= _NEAR:
        return Verdict(
            "memory",
            stage,
            f"{who}, and reads weights at {share:.0%} of what its memory can do: more sequences at once cost it "
            "little; one stream gets faster with fewer bytes (layout, head) or more memory bandwidth.",
        )
    rest = f"reads weights at only {share:.0%} of what its memory can do" if limit else "its memory is not measured yet"
    return Verdict(
        "compute",
        stage,
        f"{who}, and {rest}: it needs more threads or faster cores, or fewer layers than the others.",
    )


def _wire(found: Profile) -> Verdict:
    slowest = max(range(len(found.stages)), key=lambda i: found.stages[i].wire_s)
    seconds = found.stages[slowest].wire_s
    return Verdict(
        "wire",
        slowest,
        f"Hops take longer than computing, that to stage {slowest} the longest ({1e3 * seconds:.2f} ms a step): "
        "fewer stages, or stages nearer to each other, are faster.",
    )


def _scheduler(found: Profile) -> Verdict:
    return Verdict(
        "scheduler",
        None,
        f"{1e3 * found.other_s:.2f} ms of a step of {1e3 * found.step_s:.2f} ms are spent outside of the stages: give "
        "the coordinator a core of its own, or fewer stages.",
    )


def _queue(demand: Demand) -> Verdict:
    what = "slots (--slots)" if demand.running >= demand.slots else "KV pages (--kv-tokens, --kv-dtype)"
    return Verdict(
        "queue", None, f"{demand.waiting} requests wait though the stages have time: there are too few {what}."
    )


def _stalled(demand: Demand) -> Verdict:
    waiting = demand.running + demand.waiting
    return Verdict("stalled", None, f"{waiting} requests are there, but no step came back: see `trireme status`.")


def _idle() -> Verdict:
    return Verdict("idle", None, "There was hardly any work: nothing holds the pipeline back.")
