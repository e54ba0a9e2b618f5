"""Throughput after a fault, and how long streams stood still: pure functions of a history.

A rate is tokens per CPU second *that the rest of the machine left to us* (`Left`), so that somebody else's work on the
same cores is no violation; without such samples it is tokens per second. Undisturbed is the lower quartile of all
windows of the last calm minute: so low the rate is now and then anyway, depending on who asks for what.
Recovered is the first window after healing that reaches 95 % of it.

    calm          burst             healing  at most 10 s    next burst
    [---][---]    |X----|  |X---------|      [---]           |X
"""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fault.checker import Violation, calls_of
from tests.fault.history import Event, FaultBegan, FaultEnded, Left, Pace, Tokens

WINDOW = 4.0
SHARE = 0.95
WITHIN = 10.0
_STEP = 0.25
_LATE, _MOMENT = 1.0, 0.02
_CALM_WINDOWS = 240
"""How many of the last undisturbed windows count: a minute of them."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Faults that overlap, or follow each other before there was time to recover."""

    begun: float
    healed: float
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a burst did to the throughput."""

    burst: Burst
    undisturbed: float
    best: float
    """Of the windows in the ten seconds after healing."""
    seconds: float | None
    """From healing to the first window that was good enough; None: there was none before the next burst."""
    judged: bool
    """Whether there was a calm before and ten seconds after."""


def bursts(history: Sequence[Event]) -> list[Burst]:
    """Faults put together where less than `WITHIN` seconds lie between them."""
    began = {e.fault: e for e in history if isinstance(e, FaultBegan)}
    healed = {e.fault: e.t for e in history if isinstance(e, FaultEnded)}
    found: list[Burst] = []
    for fault in sorted(began.values(), key=lambda e: e.t):
        end = healed.get(fault.fault, float("inf"))
        if found and fault.t < found[-1].healed + WITHIN:
            last = found.pop()
            found.append(Burst(last.begun, max(last.healed, end), (*last.kinds, fault.kind)))
        else:
            found.append(Burst(fault.t, end, (fault.kind,)))
    return found


def recoveries(history: Sequence[Event], begun: float, ended: float, share: float = SHARE) -> list[Recovery]:
    """One for each burst; the clients ran from `begun` to `ended`."""
    rate = _Rate(history)
    all_bursts = bursts(history)
    found, calm = [], rate.windows(begun, all_bursts[0].begun) if all_bursts else []
    for i, burst in enumerate(all_bursts):
        limit = all_bursts[i + 1].begun if i + 1 < len(all_bursts) else ended
        found.append(_recovery(rate, burst, calm[-_CALM_WINDOWS:], limit, share))
        calm += rate.windows(burst.healed + WITHIN, limit)
    return found


def check_rates(history: Sequence[Event], begun: float, ended: float, share: float = SHARE) -> list[Violation]:
    """Bursts after which the throughput did not come back in time."""
    return [
        Violation(
            "throughput",
            r.burst.healed,
            f"{WITHIN:g} s after {' + '.join(r.burst.kinds)} the best rate was {r.best / r.undisturbed:.0%} of before"
            f"{_slower(history, r.burst)}.",
        )
        for r in recoveries(history, begun, ended, share)
        if r.judged and (r.seconds is None or r.seconds > WITHIN)
    ]


def _slower(history: Sequence[Event], burst: Burst) -> str:
    """How fast the machine was after a burst, beside the minute before it; empty where that was not sampled."""
    before, after = (
        [e.mb_per_cpu_s for e in history if isinstance(e, Pace) and start <= e.t <= end]
        for start, end in ((burst.begun - 60, burst.begun), (burst.healed, burst.healed + WITHIN + WINDOW))
    )
    if not before or not after:
        return ""
    return f", the machine's own pace {statistics.median(after) / statistics.median(before):.0%}"


def standstills(history: Sequence[Event]) -> list[tuple[FaultBegan, float]]:
    """For each fault that came alone the longest time in seconds that an answer under way stood still because of it.

    From one token to the next, or to the end of a call that its caller did not end; counted from the fault on, and only
    what began before the fault was over or within a second after.
    """
    alone = {burst.begun: burst.healed for burst in bursts(history) if len(burst.kinds) == 1}
    spans = _spans(history)
    found = []
    for fault in (e for e in history if isinstance(e, FaultBegan) and e.t in alone):
        hit = [b - max(a, fault.t) for a, b in spans if a <= alone[fault.t] + _LATE and b > fault.t]
        found.append((fault, max(hit, default=0.0)))
    return found


def _spans(history: Sequence[Event]) -> list[tuple[float, float]]:
    """All times that an answer stood still for more than a moment."""
    spans = []
    for call in calls_of(history).values():
        times = [message.t for message in call.tokens]
        if call.ended is not None and not call.cancelled and call.ended.status != "DEADLINE_EXCEEDED":
            times.append(call.ended.t)
        spans += [pair for pair in itertools.pairwise(times) if pair[1] - pair[0] > _MOMENT]
    return spans


def _recovery(rate: _Rate, burst: Burst, calm: Sequence[float], limit: float, share: float) -> Recovery:
    undisturbed = statistics.quantiles(calm, n=4)[0] if len(calm) > 1 else 0.0
    after = rate.windows(burst.healed, min(burst.healed + WITHIN + WINDOW, limit))
    good = [i * _STEP for i, value in enumerate(after) if value >= share * undisturbed]
    judged = undisturbed > 0 and limit >= burst.healed + WITHIN + WINDOW
    return Recovery(burst, undisturbed, max(after, default=0.0), min(good, default=None), judged)


class _Rate:
    """Tokens per CPU second that was ours, in windows."""

    def __init__(self, history: Sequence[Event]) -> None:
        tokens = [e for e in history if isinstance(e, Tokens)]
        self._times = [e.t for e in tokens]
        self._counts = [0, *itertools.accumulate(len(e.ids) for e in tokens)]
        left = [e for e in history if isinstance(e, Left)]
        self._left_times, self._left = [e.t for e in left], [e.cpu for e in left]

    def windows(self, start: float, end: float) -> list[float]:
        """Rates of all windows between two moments, in steps."""
        found = []
        while start + WINDOW <= end + 1e-9:
            found.append(self._tokens(start, start + WINDOW) / max(self._ours(start, start + WINDOW), 1e-9))
            start += _STEP
        return found

    def _tokens(self, start: float, end: float) -> int:
        low, high = (bisect.bisect_left(self._times, t) for t in (start, end))
        return self._counts[high] - self._counts[low]

    def _ours(self, start: float, end: float) -> float:
        if len(self._left) < 2:
            return end - start
        return self._at(end) - self._at(start)

    def _at(self, t: float) -> float:
        """The samples, joined by straight lines."""
        i = min(max(bisect.bisect(self._left_times, t), 1), len(self._left) - 1)
        (t0, t1), (v0, v1) = self._left_times[i - 1 : i + 1], self._left[i - 1 : i + 1]
        return v0 + (v1 - v0) * (t - t0) / (t1 - t0)
