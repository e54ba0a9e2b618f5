"""Which traces are delivered: decided when a request has ended, and all is known of it. Pure but for its memory.

caller    the caller's own trace is sampled; one that is not is never delivered
steps     every step was asked for
error     it failed, and not by the caller's fault
recovery  the pipeline was lost under it
slow      its first token, or a pause between two, took longer than the threshold
slowest   hardly any of the last requests waited longer for its first token, or for each of the others
share     drawn by the trace id, so that all coordinators draw alike
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

_SEEN = 256
_ENOUGH = 64
"""Requests that must have been seen before one can be among the slowest."""
_SLOWEST = 0.02
_BITS = 56
"""Of a trace id that are random, by the W3C's second level."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision rests on."""

    trace_id: int
    caller_sampled: bool | None
    steps: bool
    error: bool
    recoveries: int
    first_token_s: float
    """0: there was none."""
    token_s: float
    """Mean time between tokens; 0: there was only one."""
    pause_s: float
    """Longest time between two results."""


class TailSampling:
    """Remembers the last requests, to tell which are slow for here and now. May be asked from several threads."""

    def __init__(self, share: float, slow_s: float) -> None:
        """`share`: 0 to 1."""
        self._share, self._slow_s = share, slow_s
        self._lock = threading.Lock()
        self._firsts: deque[float] = deque(maxlen=_SEEN)
        self._tokens: deque[float] = deque(maxlen=_SEEN)

    def decide(self, facts: Facts) -> str:
        """Why a trace is kept, a word of the list above; empty: it is not."""
        with self._lock:
            slowest = self._slowest(self._firsts, facts.first_token_s) | self._slowest(self._tokens, facts.token_s)
        if facts.caller_sampled is not None:
            return "caller" if facts.caller_sampled else ""
        reasons = {
            "steps": facts.steps,
            "error": facts.error,
            "recovery": facts.recoveries > 0,
            "slow": max(facts.first_token_s, facts.pause_s) > self._slow_s,
            "slowest": slowest,
            "share": (facts.trace_id & ((1 << _BITS) - 1)) < self._share * (1 << _BITS),
        }
        return next((reason for reason, true in reasons.items() if true), "")

    @staticmethod
    def _slowest(seen: deque[float], seconds: float) -> bool:
        if not seconds:
            return False
        place = bisect_left(sorted(seen), seconds) if len(seen) >= _ENOUGH else 0
        seen.append(seconds)
        return place > (1 - _SLOWEST) * len(seen)
