"""The books of recoveries: what was lost, when, and how the pipeline came back. Knows no stages and no network.

A loss opens a recovery; further losses before the pipeline is complete again belong to it; `complete` closes it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trireme_coordinator.loss import RECOVERIES, Cause, Method, RecoveryEvent, StageLoss, method_of

log = logging.getLogger(__name__)


@dataclass
class _Open:
    """A recovery that is under way."""

    cause: Cause
    detection_s: float
    began: float
    sequences: int
    tokens: int
    stages: set[int] = field(default_factory=set)


class Recoveries:
    """Remembers the last `RECOVERIES` events. `count`: all of them; `trouble`: why the pipeline is not complete."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, time_ns: Callable[[], int] = time.time_ns) -> None:
        self.count = 0
        self.tallies: Counter[tuple[str, ...]] = Counter()
        """Of all recoveries, by cause and method."""
        self.sums: Counter[str] = Counter()
        """Of all recoveries: milliseconds of detection and rebuild, sequences, tokens."""
        self.events: deque[RecoveryEvent] = deque(maxlen=RECOVERIES)
        self.trouble = "The stages are starting."
        self._clock, self._time_ns = clock, time_ns
        self._addresses: list[str] = []
        self._open: _Open | None = None

    def lost(self, cause: Cause, losses: Sequence[StageLoss], *, sequences: int, tokens: int) -> None:
        """The pipeline is not complete any more, or could not be completed."""
        named = ", ".join(f"stage {loss.stage} is {loss.cause}" for loss in losses)
        self.trouble = f"The pipeline is being rebuilt: {named or cause}."
        if self._open is None and self._addresses:
            longest = max((loss.seconds for loss in losses), default=0.0)
            self._open = _Open(cause, longest, self._clock(), sequences, tokens)
        if self._open is not None:
            self._open.stages |= {loss.stage for loss in losses}

    def recent(self) -> list[RecoveryEvent]:
        """The events; one that is under way is the last of them."""
        if (begun := self._open) is None:
            return list(self.events)
        stages, rebuild_s = tuple(sorted(begun.stages)), self._clock() - begun.began
        figures = begun.detection_s, rebuild_s, begun.sequences, begun.tokens
        return [*self.events, RecoveryEvent(begun.cause, stages, Method.UNFINISHED, *figures, self._time_ns())]

    def complete(self, addresses: Sequence[str]) -> None:
        """The pipeline stands, with its stages at these addresses (HOST:PORT)."""
        if (begun := self._open) is not None:
            event = RecoveryEvent(
                cause=begun.cause,
                stages=tuple(sorted(begun.stages)),
                method=method_of(self._addresses, addresses),
                detection_s=begun.detection_s,
                rebuild_s=self._clock() - begun.began,
                sequences=begun.sequences,
                tokens=begun.tokens,
                at_ns=self._time_ns(),
            )
            self.events.append(event)
            self._add(event)
            log.warning("%s", event)
        self._addresses, self._open, self.trouble = list(addresses), None, ""

    def _add(self, event: RecoveryEvent) -> None:
        self.count += 1
        self.tallies[event.cause.value, event.method.value] += 1
        times = {"detection": round(1e3 * event.detection_s), "rebuild": round(1e3 * event.rebuild_s)}
        self.sums.update({**times, "sequences": event.sequences, "tokens": event.tokens})
