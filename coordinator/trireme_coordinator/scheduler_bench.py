"""What scheduling costs: CPU time for each token and step, on a pipeline that answers at once.

Knows the scheduler and the frames that it becomes; no stage, no network.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from trireme_coordinator.metrics.steps import StepMeter
from trireme_coordinator.pipeline import frame_of
from trireme_coordinator.scheduler import Batch, SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_proto.v1 import stage_pb2 as pb

STAGES = 4
SEQUENCES = (8, 64, 256, 1000)
_LONG = 1 << 20


@dataclass(frozen=True, slots=True)
class SchedulerCost:
    """Microseconds of CPU for each token with so many sequences decoding."""

    sequences: int
    tokens: int
    schedule_us: float
    """Of the scheduler: choosing rows and taking results in."""
    frame_us: float
    """Of writing frames."""
    metrics_us: float
    """Of counting what came back."""

    @property
    def total_us(self) -> float:
        return self.schedule_us + self.frame_us + self.metrics_us


def measure(sequences: int, tokens: int, *, tenants: int = 1) -> SchedulerCost:
    """Decodes at least `tokens` tokens of `sequences` sequences that belong to `tenants` tenants."""
    scheduler = _filled(sequences, tenants)
    under_way: deque[Batch] = deque()
    meter, timings = StepMeter(), [pb.StageTiming(wire_ns=80_000, wait_ns=5_000, compute_ns=1_000_000)] * STAGES
    made = scheduling = framing = counting = 0
    while made < tokens:
        begun = time.process_time_ns()
        while (batch := scheduler.schedule()) is not None:
            under_way.append(batch)
            chosen = time.process_time_ns()
            scheduling += chosen - begun
            frame_of(batch, epoch=1).SerializeToString()
            begun = time.process_time_ns()
            framing += begun - chosen
        batch = under_way.popleft()
        sampled = [(row.slot, (made + row.slot * 31) % 997) for row in batch.rows for _ in range(row.sampled)]
        taken = scheduler.complete(batch.step, sampled)[1]
        made += sum(map(len, taken.values()))
        scheduler.learn(batch, [1_000_000 + 1000 * len(batch.rows)] * STAGES, 4_100_000)
        learnt = time.process_time_ns()
        meter.stepped(batch, len(sampled), taken, timings, begun, learnt)
        scheduling += learnt - begun
        counting += time.process_time_ns() - learnt
    return SchedulerCost(sequences, made, *(spent / made / 1e3 for spent in (scheduling, framing, counting)))


def _filled(sequences: int, tenants: int) -> Scheduler:
    """A scheduler with all of them decoding, and as many again in the queue."""
    pages = sequences * (_LONG // 16 + 1)
    scheduler = Scheduler(SchedulerConfig(STAGES, sequences, pages, 2 * _LONG, 4096, sequences))
    for i in range(2 * sequences):
        how = SamplingParams(0.7, 40, 0.9, i)
        scheduler.submit(Sequence([i % 7, *range(8)], how, _LONG, session_id=f"s{i}", tenant=f"t{i % tenants}"))
        if i == sequences - 1:
            _prefill(scheduler)
    return scheduler


def _prefill(scheduler: Scheduler) -> None:
    while any(not sequence.generated for sequence in scheduler.running) or scheduler.waiting:
        batch = scheduler.schedule()
        if batch is None:
            break
        scheduler.complete(batch.step, [(row.slot, 7) for row in batch.rows if row.samples])
