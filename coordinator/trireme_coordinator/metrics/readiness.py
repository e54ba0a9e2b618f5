"""Whether requests can be served, and why not. Pure: who asks brings the time and what is the case.

Progress counts, not presence: a server whose steps do not come back is not ready, however well it answers. What takes
long on this machine is no stall: three times the longest step so far is waited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STALLED_S = 30.0
"""Least time without a step, while there is work, that is a stall."""
_SLACK = 3.0


@dataclass(slots=True)
class Progress:
    """Of steps, as often as somebody looks."""

    stalled_s: float = 0.0
    """Since the last step, while there is work; 0 without work."""
    _longest_s: float = 0.0
    _since: float = 0.0
    _steps: int = -1

    def look(self, now: float, steps: int, *, busy: bool) -> None:
        """So many steps are complete now; `busy`: there is work."""
        if steps != self._steps or not busy:
            if busy and self._steps >= 0:
                self._longest_s = max(self._longest_s, self.stalled_s)
            self._since, self._steps = now, steps
        self.stalled_s = now - self._since

    @property
    def stalled(self) -> bool:
        """Whether the work does not get on."""
        return self.stalled_s > max(STALLED_S, _SLACK * self._longest_s)


@dataclass(slots=True)
class Readiness:
    """Puts together what is known. The health service and /readyz say what this says."""

    clock: Callable[[], float]
    """Seconds."""
    steps: Callable[[], int]
    busy: Callable[[], bool]
    trouble: Callable[[], str]
    """Why no requests are served, one sentence for a person; empty where they are."""
    progress: Progress
    draining: bool = False

    def reason(self) -> str:
        """Why the server is not ready, one sentence; empty where it is."""
        self.progress.look(self.clock(), self.steps(), busy=self.busy())
        if self.draining:
            return "This coordinator is stopping."
        if trouble := self.trouble():
            return trouble
        if self.progress.stalled:
            return f"There is work, but no step has been completed for {self.progress.stalled_s:.0f} seconds."
        return ""
