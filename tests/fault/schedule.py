"""Which faults come when: a pure function of the seed, the length of the run and the kinds that are switched on.

Faults come in bursts of one to three, so that some hit a recovery that is under way; between bursts there is time to
recover and to see that all is well again. Kinds are dealt like cards, so that each comes before any comes twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LASTING = {
    "worker-freeze": (1.5, 6.0),
    "raylet-freeze": (1.0, 4.0),
    "node-kill": (2.0, 4.0),
    "node-partition": (1.5, 5.0),
    "coordinator-freeze": (0.5, 4.0),
    "coordinator-kill": (0.1, 0.5),
    "coordinator-term": (0.1, 0.5),
    "redis-kill": (0.2, 4.0),
    "redis-freeze": (0.5, 4.0),
    "redis-full": (1.0, 4.0),
    "redis-readonly": (1.0, 4.0),
    "redis-slow": (1.0, 4.0),
    "redis-stall": (0.5, 4.0),
    "redis-cut": (0.1, 2.0),
    "client-slow": (1.0, 3.0),
    "client-stall": (0.5, 2.0),
    "client-cut": (0.1, 1.0),
}
"""Shortest and longest time in seconds of the faults that last; all others are over when they have been done."""
KINDS = ("worker-kill", "worker-term", *LASTING)
FIRST = 8.0
"""Seconds before the first fault: what an undisturbed run looks like on this machine right now."""
CALM = 16.0
"""Seconds between two bursts: ten to recover, and more of which the next burst's undisturbed rate is taken."""
_SIZES = (1, 1, 1, 2, 2, 3)
_APART = (0.1, 2.5)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule."""

    number: int
    at: float
    """Seconds since the clients began."""
    kind: str
    target: int
    """Which of those that it can hit; whoever injects it takes it modulo their number."""
    seconds: float
    """How long it lasts; 0 where there is nothing to take back."""


def schedule(seed: int, seconds: float, kinds: Sequence[str]) -> tuple[Fault, ...]:
    """Faults in the order of their time; none ends later than `CALM` before the end of a run of `seconds`."""
    draw = random.Random(f"{seed}/{','.join(kinds)}")
    deck = _deal(draw, kinds)
    faults: list[Fault] = []
    at = FIRST
    while kinds:
        burst = [_fault(draw, next(deck), at + delay) for delay in _delays(draw)]
        end = max(fault.at + fault.seconds for fault in burst)
        if end + CALM > seconds:
            break
        faults += burst
        at = end + CALM + draw.uniform(0, 1)
    return tuple(Fault(n, round(f.at, 2), f.kind, f.target, round(f.seconds, 2)) for n, f in enumerate(faults, start=1))


def _deal(draw: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from draw.sample(kinds, len(kinds))


def _delays(draw: random.Random) -> list[float]:
    delays = [0.0]
    for _ in range(draw.choice(_SIZES) - 1):
        delays.append(delays[-1] + draw.uniform(*_APART))
    return delays


def _fault(draw: random.Random, kind: str, at: float) -> Fault:
    return Fault(0, at, kind, draw.randrange(1 << 16), draw.uniform(*LASTING.get(kind, (0.0, 0.0))))
