"""The table of goals that the kernels are held to: one line for each, and whether what was measured meets it.

Goals are ratios inside one run wherever they can be, so that they hold on any machine. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A goal.  `at_least`: larger is better; else the goal is the most that is allowed.  None: for information."""

    key: str
    what: str
    goal: float | None
    at_least: bool = True
    unit: str = ""


TARGETS = (
    Target("vector_of_read_1", "matrix x vector / plain read, 1 thread", 0.93),
    Target("vector_of_read_all", "matrix x vector / plain read, all threads", 0.90),
    Target("base3_over_2bit_1", "1.6-bit over 2-bit speed, 1 thread", 1.20),
    Target("base3_over_2bit_all", "1.6-bit over 2-bit speed, all threads", 1.20),
    Target("tokens4_of_peak_1", "matrix x 4 tokens / dot product peak, 1 thread", 0.88),
    Target("tokens8_of_peak_1", "matrix x 8 tokens / dot product peak, 1 thread", 0.92),
    Target("tokens8_of_peak_all", "matrix x 8 tokens / dot product peak, all threads", 0.92),
    Target("tokens128_of_peak_1", "matrix x 128 tokens / dot product peak, 1 thread", 0.93),
    Target("tokens128_of_peak_all", "matrix x 128 tokens / dot product peak, all threads", 0.93),
    Target("decode_of_read_1", "decode step of 2b4t / plain read, 1 thread", 0.88),
    Target("decode_of_read_all", "decode step of 2b4t / plain read, all threads", 0.84),
    Target("layers_70b_of_read_1", "layers of 70b / plain read, 1 thread", 0.90),
    Target("layers_70b_of_read_all", "layers of 70b / plain read, all threads", 0.90),
    Target("head_4bit_over_int8", "4-bit-first head over int8 head", 1.6),
    Target("attention_4096_ms", "attention of 2b4t at 4,096 positions, int8, 1 thread, a token", 5.0, False, "ms"),
    Target("attention_4096_float16_ms", "the same, keys and values in float16", None, False, "ms"),
    Target("attention_4096_float32_ms", "the same, keys and values in float32", None, False, "ms"),
    Target("contended_speedup", "all threads over 1 thread, as many foreign processes busy", 1.0),
    Target("cold_compile_s", "kernels compiled", 15.0, False, "s"),
    Target("cached_start_s", "kernels started from the cache", 1.0, False, "s"),
)
"""Every line of the table, in the order in which it is printed."""


@dataclass(frozen=True, slots=True)
class Line:
    """A goal with what was measured; `measured` is None where it was not, and `why_not` says why."""

    target: Target
    measured: float | None
    why_not: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where nothing was measured, or there is none."""
        goal = self.target.goal
        if self.measured is None or goal is None:
            return None
        return self.measured >= goal if self.target.at_least else self.measured <= goal


def lines(measured: Mapping[str, float], missing: Mapping[str, str]) -> tuple[Line, ...]:
    """The table.  `missing`: a reason for each target that has no measurement."""
    return tuple(Line(t, measured.get(t.key), missing.get(t.key, "not asked for")) for t in TARGETS)
