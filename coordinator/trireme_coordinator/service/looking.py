"""How a sequence found the keys and values of its beginning, each time that it was given a place, for its trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trireme_coordinator.scheduler import Restored, Sequence
from trireme_coordinator.scheduler.prefix import PAGE_TOKENS
from trireme_coordinator.telemetry import Lookup


@dataclass(slots=True)
class Looking:
    """`clock`: the engine's, nanoseconds."""

    sequence: Sequence
    clock: Callable[[], int]
    _told: int = 0
    _known: Restored | None = None

    def news(self) -> Lookup | None:
        """What was found; None where that has been told."""
        sequence = self.sequence
        if sequence.admissions == self._told:
            return None
        self._told = sequence.admissions
        since, found = self.clock() - sequence.placed_ns, sequence.restored
        if found is None or found is self._known:
            return Lookup(since, sequence.cached)
        self._known = found
        held = sequence.cached - found.pages * PAGE_TOKENS if self._told == 1 else 0
        return Lookup(since, max(0, held), True, found.found, found.pages, found.bytes, found.seconds, found.reading_s)
