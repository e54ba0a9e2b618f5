"""Adds up where the steps of one phase spent their time, stage by stage. Pure.

A step's result arrives with one timing a stage; from its arrival the step is laid out backwards:

    | wire 0 | wait 0 | compute 0 | wire 1 | wait 1 | compute 1 | arrived
    ^ first_ns of stage 0         ^ last_ns of stage 0 and first_ns of stage 1

The way of the result back to the coordinator is not in the timings, so the layout is late by that much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_STAGES = 1024
"""Stages beyond it are not told apart: the number of spans stays bounded whatever arrives."""


class Timing(Protocol):
    """Nanoseconds that one stage spent on one frame; `StageTiming` of stage.proto is one."""

    @property
    def wire_ns(self) -> int: ...
    @property
    def wait_ns(self) -> int: ...
    @property
    def compute_ns(self) -> int: ...


@dataclass(slots=True)
class StageTotal:
    """One stage's part of a phase."""

    first_ns: int
    """When its first frame was sent to it."""
    last_ns: int = 0
    """When it was done with its last frame."""
    frames: int = 0
    tokens: int = 0
    wire_ns: int = 0
    wait_ns: int = 0
    compute_ns: int = 0


class StageTotals:
    """The totals of all stages of a phase, in pipeline order."""

    def __init__(self) -> None:
        self.stages: list[StageTotal] = []
        self.frames = 0
        self.tokens = 0

    def add(self, timings: Sequence[Timing], tokens: int, arrived_ns: int) -> None:
        """A step with `tokens` tokens of the request has passed all stages."""
        self.frames += 1
        self.tokens += tokens
        timings = timings[:MOST_STAGES]
        at = arrived_ns - sum(timing.wire_ns + timing.wait_ns + timing.compute_ns for timing in timings)
        for index, timing in enumerate(timings):
            if index == len(self.stages):
                self.stages.append(StageTotal(first_ns=at))
            at += timing.wire_ns + timing.wait_ns + timing.compute_ns
            total = self.stages[index]
            total.last_ns = max(total.last_ns, at)
            total.frames += 1
            total.tokens += tokens
            total.wire_ns += timing.wire_ns
            total.wait_ns += timing.wait_ns
            total.compute_ns += timing.compute_ns
