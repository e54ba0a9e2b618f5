"""Timing: trials in turns, round after round, and the median of each.

Owns the order of trials and the clock; knows nothing of what a trial does. Trials take turns so that whatever slows the
machine for a while slows all of them: their ratio stays right where their absolute times do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS = 7
MIN_ROUNDS = 5
"""A median of fewer says little."""
REST_S = 0.02
"""Pause before a trial: threads of the one before that still spin go to sleep."""

Report = Callable[[int, int, str], None]
"""(trials done, trials in all, what comes next)."""


def silent(_done: int, _total: int, _what: str) -> None:
    """A Report that shows nothing."""


def _nothing() -> None:
    """No preparation."""


@dataclass(frozen=True)
class Trial:
    """Work to be timed.

    run      what is timed
    amount   how much it does: bytes, multiply-adds or tokens
    prepare  called before each run, outside of the time
    """

    run: Callable[[], object]
    amount: float = 1.0
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Timing:
    """What a trial took in each round, in seconds, and how much it did each time."""

    seconds: tuple[float, ...]
    amount: float = 1.0

    @property
    def median(self) -> float:
        """Seconds of the middle round."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Amount per second in the middle round."""
        return self.amount / self.median


@dataclass(frozen=True)
class Watch:
    """The clock, injected so that tests need no time: `now` in seconds, `rest` waits."""

    now: Callable[[], float] = time.perf_counter
    rest: Callable[[float], None] = time.sleep


def interleaved(
    trials: Mapping[str, Trial], *, rounds: int = ROUNDS, watch: Watch | None = None, report: Report = silent
) -> dict[str, Timing]:
    """Times every trial once a round. A round that does not count goes first: it compiles and touches memory."""
    watch = watch or Watch()
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    total = len(trials) * (rounds + 1)
    for done in range(total):
        name = list(trials)[done % len(trials)]
        report(done, total, name if done >= len(trials) else f"{name} (warming up)")
        took = _once(trials[name], watch)
        if done >= len(trials):
            seconds[name].append(took)
    report(total, total, "done")
    return {name: Timing(tuple(took), trials[name].amount) for name, took in seconds.items()}


def _once(trial: Trial, watch: Watch) -> float:
    trial.prepare()
    watch.rest(REST_S)
    began = watch.now()
    trial.run()
    return watch.now() - began
