"""A step as the engine reports it to those who took part in it: the stages' own times, and when it was under way.

Made once a step and shared by all requests of the micro-batch; what is worked out from it is worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trireme_coordinator.telemetry.tree import Process

MOST_STAGES = 1024
"""Stages beyond it are not told apart: the number of spans stays bounded whatever arrives."""
WIRE, WAIT, COMPUTE, LINEAR, ATTENTION, HEAD, SAMPLE = range(7)
"""Columns of `StepReport.times`."""
_MOST_NS = 1 << 50
"""Thirteen days. Clocks that differ may make any number of a stage's time on the wire."""


class Timing(Protocol):
    """Nanoseconds that one stage spent on one frame; `StageTiming` of stage.proto is one."""

    @property
    def wire_ns(self) -> int: ...
    @property
    def wait_ns(self) -> int: ...
    @property
    def compute_ns(self) -> int: ...
    @property
    def linear_ns(self) -> int: ...
    @property
    def attention_ns(self) -> int: ...
    @property
    def head_ns(self) -> int: ...
    @property
    def sample_ns(self) -> int: ...


class StepReport:
    """One micro-batch that has passed all stages."""

    __slots__ = ("_times", "round_ns", "sent_ns", "stages", "timings")

    def __init__(
        self, timings: Sequence[Timing], sent_ns: int = 0, round_ns: int = 0, stages: Sequence[Process] = ()
    ) -> None:
        self.timings = timings
        self.sent_ns = sent_ns
        """By the last stage's clock, when it was done; 0: not known."""
        self.round_ns = round_ns
        """From when the micro-batch was handed to the pipeline until its result was here; 0: not known."""
        self.stages = stages
        """The processes; one list for the whole epoch."""
        self._times: NDArray[np.int64] | None = None

    @property
    def times(self) -> NDArray[np.int64]:
        """Nanoseconds, int64 [stages, 7]: one row a stage, columns as above."""
        if self._times is None:
            self._times = np.array([_row(t) for t in self.timings[:MOST_STAGES]], np.int64).reshape(-1, 7)
        return self._times


def _row(t: Timing) -> tuple[int, ...]:
    row = t.wire_ns, t.wait_ns, t.compute_ns, t.linear_ns, t.attention_ns, t.head_ns, t.sample_ns
    return row if max(row) < _MOST_NS else tuple(min(each, _MOST_NS) for each in row)
