"""Adds up where the steps of one phase spent their time, stage by stage.

A step's result arrives with one timing a stage; from when the last stage was done the step is laid out backwards:

    | wire 0 | wait 0 | compute 0 | wire 1 | wait 1 | compute 1 |  way back  | arrived
    ^ begins                                                    ^ ends

Steps of one request may overlap: a decode step is sent ahead and waits at the first stage for the token that it
continues, and prefill chunks follow each other through the stages. What a frame waits, or is on the wire, while an
earlier one of the same request is still under way counts as `ahead` and neither as wait nor as wire: so the stages of a
single stream add up to the time that passed. What is left between two steps is the coordinator's.

Steps are added up many at a time, so that a token costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trireme_coordinator.telemetry.steps import COMPUTE, StepReport
from trireme_coordinator.telemetry.tree import Process

Int = NDArray[np.int64]
BUCKETS_MS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Upper bounds of the histogram's buckets; one more is above them."""
_BOUNDS = np.array(BUCKETS_MS) * 1e6
_AT_ONCE = 64
_LATEST = 1 << 62
"""A moment that no true clock shows."""


@dataclass(slots=True)
class StageSums:
    """All stages of one epoch, over the steps of a phase: arrays have a row, or an element, a stage. Nanoseconds."""

    stages: Sequence[Process]
    times: Int
    """Sums, [stages, 7]: columns of `steps.py`."""
    ahead: Int
    histogram: Int
    """[stages, len(BUCKETS_MS) + 1]: steps by wire + wait + compute."""
    slowest: Int
    slowest_step: Int
    """Number of that step in its phase, from 0."""
    first: Int
    last: Int
    """When the first frame was sent to it, and when it was done with its last one."""
    frames: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class LaidOut:
    """One step in time."""

    sent_ns: int
    ends_ns: int
    arrived_ns: int
    tokens: int
    edges: Int
    """[3 * stages + 1]: the ends of wire, wait and compute of each stage in turn, behind the beginning."""
    stages: Sequence[Process]


@dataclass(slots=True)
class StepLog:
    """The steps of one phase that begins, or whose last step before it ended, at `last_ns`."""

    last_ns: int
    every: bool = False
    """Keep each step as it is, too."""
    most: int = 0
    """Steps that are kept so."""
    frames: int = 0
    tokens: int = 0
    coordinator_ns: int = 0
    """Between two steps: the result's way back, and the turn of the coordinator."""
    longest_gap_ns: int = 0
    """Between two results."""
    sums: list[StageSums] = field(default_factory=list)
    """One for each epoch."""
    steps: list[LaidOut] = field(default_factory=list)
    _pending: list[tuple[StepReport, int, int]] = field(default_factory=list)
    _arrived: int = 0

    def add(self, step: StepReport, tokens: int, arrived_ns: int) -> None:
        """A step with `tokens` tokens of the request has passed all stages."""
        pending = self._pending
        if pending and (len(pending) >= _AT_ONCE or not _alike(pending[-1][0], step)):
            self.fold()
        if self.sums and not self._pending and self.sums[-1].stages is not step.stages:
            self.resume(arrived_ns - step.round_ns)  # the pipeline was rebuilt in between
        self._pending.append((step, tokens, arrived_ns))

    def resume(self, after_ns: int) -> None:
        """Something else went on meanwhile, until then: it is not the coordinator's time."""
        self.fold()
        self.last_ns = max(self.last_ns, after_ns)

    def fold(self) -> None:
        """Adds up what came in; before anything else is read here."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        reports, tokens, arrived = zip(*pending, strict=True)
        times = np.stack([report.times for report in reports])
        self.frames += len(reports)
        self.tokens += sum(tokens)
        if not times.shape[1]:
            return
        at = np.array(arrived, np.int64)
        self._gaps(at)
        edges = _edges(times, at, [r.sent_ns for r in reports], [r.round_ns for r in reports])
        before = np.maximum(np.maximum.accumulate(np.concatenate([[self.last_ns], edges[:-1, -1]])), self.last_ns)
        self.coordinator_ns += int(np.maximum(edges[:, 0] - before, 0).sum())
        self.last_ns = max(self.last_ns, int(edges[:, -1].max()))
        own = _own(times, edges, before)
        self._sum(reports[0].stages, times, own, np.maximum(edges, before[:, None]), sum(tokens))
        for i in range(min(len(reports), self.most - len(self.steps)) if self.every else 0):
            sent = arrived[i] - reports[i].round_ns
            self.steps.append(LaidOut(sent, int(edges[i, -1]), arrived[i], tokens[i], edges[i], reports[i].stages))

    def _gaps(self, arrived: Int) -> None:
        since = np.concatenate([[self._arrived or arrived[0]], arrived])
        self.longest_gap_ns = max(self.longest_gap_ns, int(np.diff(since).max()))
        self._arrived = int(arrived[-1])

    def _sum(self, stages: Sequence[Process], times: Int, own: Int, edges: Int, tokens: int) -> None:
        """`own`: [steps, stages, 7]; `edges`: cut to what no earlier step covers."""
        count = times.shape[1]
        if not self.sums or self.sums[-1].stages is not stages or len(self.sums[-1].times) != count:
            self.sums.append(_empty(stages, count))
        into = self.sums[-1]
        whole = own[:, :, : COMPUTE + 1].sum(2)
        slowest, steps = whole.max(0), whole.argmax(0) + self.frames - len(times)
        into.slowest_step = np.where(slowest > into.slowest, steps, into.slowest_step)
        into.slowest = np.maximum(slowest, into.slowest)
        into.times += own.sum(0)
        into.ahead += (times[:, :, :COMPUTE] - own[:, :, :COMPUTE]).sum((0, 2))
        buckets = np.searchsorted(_BOUNDS, whole)
        np.add.at(into.histogram, (np.broadcast_to(np.arange(count), buckets.shape), buckets), 1)
        into.first = np.minimum(into.first, edges[:, :-1:3].min(0))
        into.last = np.maximum(into.last, edges[:, 3::3].max(0))
        into.frames += len(times)
        into.tokens += tokens


def _alike(one: StepReport, other: StepReport) -> bool:
    return one.stages is other.stages and len(one.times) == len(other.times)


def _empty(stages: Sequence[Process], count: int) -> StageSums:
    many = [np.zeros(count, np.int64) for _ in range(3)]
    first, last = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    histogram = np.zeros((count, len(BUCKETS_MS) + 1), np.int64)
    return StageSums(stages, np.zeros((count, 7), np.int64), many[0], histogram, many[1], many[2], first, last)


def _edges(times: Int, arrived: Int, sent: Sequence[int], rounds: Sequence[int]) -> Int:
    """[steps, 3 * stages + 1]: moments between wire, wait and compute of all stages."""
    flat = times[:, :, : COMPUTE + 1].reshape(len(times), -1)
    total = flat.sum(1)
    done = np.array([min(each, _LATEST) or at for each, at in zip(sent, arrived, strict=True)], np.int64)
    ends = arrived - np.clip(arrived - done, 0, np.maximum(np.array(rounds, np.int64) - total, 0))
    edges = np.zeros((len(times), flat.shape[1] + 1), np.int64)
    np.cumsum(flat, axis=1, out=edges[:, 1:])
    edges += (ends - total)[:, None]
    return edges


def _own(times: Int, edges: Int, before: Int) -> Int:
    """`times`, without what was waited, or on the wire, while an earlier step of the request was under way."""
    own = times.copy()
    cut = np.diff(np.maximum(edges, before[:, None]), axis=1).reshape(len(times), -1, 3)
    own[:, :, :COMPUTE] = cut[:, :, :COMPUTE]
    return own
