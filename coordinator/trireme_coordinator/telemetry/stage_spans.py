"""Spans of what the stages did: added up for a phase, chunk by chunk, or step by step."""

from __future__ import annotations

from collections.abc import Sequence

from trireme_coordinator.telemetry import names
from trireme_coordinator.telemetry.request_trace import Layers
from trireme_coordinator.telemetry.step_log import BUCKETS_MS, LaidOut, StageSums, StepLog
from trireme_coordinator.telemetry.steps import ATTENTION, COMPUTE, HEAD, LINEAR, SAMPLE, WAIT, WIRE
from trireme_coordinator.telemetry.tree import STAGE_SERVICE, Process, SpanTree, Value

_SPLIT = {names.LINEAR_MS: LINEAR, names.ATTENTION_MS: ATTENTION, names.HEAD_MS: HEAD, names.SAMPLE_MS: SAMPLE}


def add_stages(phase: SpanTree, log: StepLog, layers: Layers) -> None:
    """One span a stage, and one more where its process was another after a recovery."""
    for sums in log.sums:
        for index in range(len(sums.times)):
            process = _process(sums.stages, index)
            attributes = _place(index, layers, process) | _sums(sums, index)
            first, last = int(sums.first[index]), int(sums.last[index])
            phase.child(f"stage {index}", first, last, attributes, process)


def add_chunks(phase: SpanTree, log: StepLog) -> None:
    """One span a prefill chunk, from its being sent to its result."""
    for step in log.steps:
        phase.child(names.CHUNK, step.sent_ns, step.arrived_ns, {names.TOKENS: step.tokens})
    if log.frames > len(log.steps):
        phase.attributes[names.SPANS_LEFT_OUT] = log.frames - len(log.steps)


def add_steps(phase: SpanTree, log: StepLog, layers: Layers, most: int) -> None:
    """One span a step, with the stages below it; as many as `most` spans allow."""
    if not log.every:
        return
    done = 0
    for number, step in enumerate(log.steps):
        stages = len(step.edges) // 3
        if (most := most - 1 - stages) < 0:
            break
        done = number + 1
        attributes: dict[str, Value] = {names.TOKENS: step.tokens, "trireme.step": number}
        span = phase.child(names.STEP, int(step.edges[0]), step.arrived_ns, attributes)
        for index in range(stages):
            _add_stage(span, step, index, layers)
    if log.frames > done:
        phase.attributes[names.SPANS_LEFT_OUT] = log.frames - done


def _add_stage(span: SpanTree, step: LaidOut, index: int, layers: Layers) -> None:
    began, wired, waited, done = (int(edge) for edge in step.edges[3 * index : 3 * index + 4])
    parts = {names.WIRE_MS: wired - began, names.WAIT_MS: waited - wired, names.COMPUTE_MS: done - waited}
    process = _process(step.stages, index)
    attributes = _place(index, layers, process) | {name: ns / 1e6 for name, ns in parts.items()}
    span.child(f"stage {index}", began, done, attributes, process)


def _place(index: int, layers: Layers, process: Process) -> dict[str, Value]:
    """Which stage, on which machine: here too, as not every backend shows resources."""
    found: dict[str, Value] = {names.STAGE: index}
    if process.host:
        found |= {names.NODE: process.host, names.PROCESS: process.process_id}
    if index < len(layers):
        found[names.FIRST_LAYER], found[names.END_LAYER] = layers[index]
    return found


def _sums(sums: StageSums, index: int) -> dict[str, Value]:
    times = [int(each) for each in sums.times[index]]
    attributes: dict[str, Value] = {
        names.FRAMES: sums.frames,
        names.TOKENS: sums.tokens,
        names.WIRE_MS: times[WIRE] / 1e6,
        names.WAIT_MS: times[WAIT] / 1e6,
        names.COMPUTE_MS: times[COMPUTE] / 1e6,
        names.AHEAD_MS: int(sums.ahead[index]) / 1e6,
        names.HISTOGRAM_BOUNDS: BUCKETS_MS,
        names.HISTOGRAM: tuple(int(each) for each in sums.histogram[index]),
        names.SLOWEST_MS: int(sums.slowest[index]) / 1e6,
        names.SLOWEST_STEP: int(sums.slowest_step[index]),
    }
    return attributes | {name: times[column] / 1e6 for name, column in _SPLIT.items() if times[column]}


def _process(stages: Sequence[Process], index: int) -> Process:
    """The stage's process; where it is not known, its place tells it from the others."""
    return stages[index] if index < len(stages) else Process(STAGE_SERVICE, f"stage-{index}")
