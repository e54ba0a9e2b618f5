"""The figures on what tracing costs, from turns of two servers. Pure.

Wall time of a turn depends on the machine's mood by more than tracing costs, so the cost is told twice: as the median
over the rounds with its confidence interval, and as processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from rich.table import Table

_TAIL = 0.025
"""Probability on either side of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of one server."""

    rate: float
    """Tokens/s from the first token to the last."""
    p99_ms: float


@dataclass(frozen=True)
class TracingCost:
    """The field names are the JSON keys. A figure is the median over the rounds; `off` and `on` are turns of one run.

    tokens_per_s      of one stream, from its first token to its last
    itl_p99_ms        99th percentile of the time between two tokens of an answer
    rate_cost         how much fewer tokens/s with tracing: the median over the rounds of 1 - on / off
    rate_cost_95      its 95 % confidence interval: [lowest, highest]
    itl_cost          how much longer the 99th percentile is: likewise of on / off - 1
    itl_cost_95       its 95 % confidence interval
    noise             the middle half of the rounds' `rate_cost`, from its lower to its upper end
    cpu_us            processor time of the coordinator's process in the whole run, what it does without work and the
                      delivery of spans included, microseconds a token
    cpu_cost          how much more of it with tracing, as a share of the time of a token
    """

    pack: str
    stages: int
    tokens: int
    rounds: int
    share: float | None
    tokens_per_s_off: float
    tokens_per_s_on: float
    itl_p99_ms_off: float
    itl_p99_ms_on: float
    rate_cost: float
    rate_cost_95: tuple[float, float]
    itl_cost: float
    itl_cost_95: tuple[float, float]
    noise: float
    cpu_us_off: float
    cpu_us_on: float
    cpu_cost: float
    exported_requests: int


def figures(
    turns: Sequence[tuple[Turn, Turn]],
    cpu_us: tuple[float, float],
    pack: str,
    stages: int,
    tokens: int,
    share: float | None,
    batches: int,
) -> TracingCost:
    """Of rounds (off, on), of which there is at least one; `cpu_us`: (off, on), a token."""
    costs = [1 - on.rate / off.rate for off, on in turns]
    longer = [on.p99_ms / off.p99_ms - 1 for off, on in turns]
    quarters = statistics.quantiles(costs, n=4) if len(costs) > 1 else [costs[0]] * 3
    rate = statistics.median(off.rate for off, _ in turns)
    return TracingCost(
        pack=pack,
        stages=stages,
        tokens=tokens,
        rounds=len(turns),
        share=share,
        tokens_per_s_off=rate,
        tokens_per_s_on=statistics.median(on.rate for _, on in turns),
        itl_p99_ms_off=statistics.median(off.p99_ms for off, _ in turns),
        itl_p99_ms_on=statistics.median(on.p99_ms for _, on in turns),
        rate_cost=statistics.median(costs),
        rate_cost_95=median_interval(costs),
        itl_cost=statistics.median(longer),
        itl_cost_95=median_interval(longer),
        noise=quarters[2] - quarters[0],
        cpu_us_off=cpu_us[0],
        cpu_us_on=cpu_us[1],
        cpu_cost=(cpu_us[1] - cpu_us[0]) * rate / 1e6,
        exported_requests=batches,
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The confidence interval of the median, at least 95 %, by ranks (binomial distribution); lowest and highest of
    fewer than six values, which is less.
    """
    ranked, count = sorted(values), len(values)
    lowest, below = 0, 1
    while (below := below + comb(count, lowest + 1)) <= _TAIL * 2**count:
        lowest += 1
    return ranked[lowest], ranked[count - 1 - lowest]


def table(found: TracingCost) -> Table:
    """Both ways, side by side."""
    made = Table("", "tokens/s", "ITL p99", "coordinator's CPU a token", box=None, padding=(0, 2, 0, 0))
    for name, rate, p99, cpu in (
        ("traces off", found.tokens_per_s_off, found.itl_p99_ms_off, found.cpu_us_off),
        ("traces on", found.tokens_per_s_on, found.itl_p99_ms_on, found.cpu_us_on),
    ):
        made.add_row(name, f"{rate:.1f}", f"{p99:.2f} ms", f"{cpu:.0f} us")
    of_time = f"{found.cpu_cost:+.2%} of a token's time"
    made.add_row("cost", f"{found.rate_cost:+.2%}", f"{found.itl_cost:+.2%}", of_time)
    made.add_row("95 % interval", _between(found.rate_cost_95), _between(found.itl_cost_95), "")
    return made


def _between(ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.2%} to {ends[1]:+.2%}"
