"""When a stage that answers does not get on: the judgement, over samples and times that the caller brings.

Pure: no clock, no network. A stage is hung when its progress stands still while it computes, for longer than it ever
took while it got on. A verdict may be wrong (a disk that is slow, a machine that is full): then the same stage would be
restarted for ever, so each verdict doubles its patience for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PERIOD_S = 0.2
"""Between two questions to a stage."""
SILENT_S = 0.7
"""A question that is not answered for so long is not answered at all."""
HUNG_S = 0.7
"""The least time without progress that is a verdict."""
MOST_PATIENCE_S = 60.0
_SLACK = 3
"""How much longer than ever before something may take."""
_FORGIVEN_S = 120.0


@dataclass
class Patience:
    """How long one stage may stand still while it computes; outlives its process."""

    longest_s: float = 0.0
    """That it stood still and got on again."""
    factor: int = 1
    verdict_at: float = float("-inf")

    def limit_s(self, now: float) -> float:
        """Seconds; `now` as everywhere on the caller's clock."""
        factor = self.factor if now - self.verdict_at < _FORGIVEN_S else 1
        return min(MOST_PATIENCE_S, max(HUNG_S * factor, _SLACK * self.longest_s))

    def condemned(self, now: float) -> None:
        """The stage was found hung."""
        self.factor = 2 * self.factor if now - self.verdict_at < _FORGIVEN_S else 2
        self.verdict_at = now


@dataclass
class Stillness:
    """One process of a stage, from its answers."""

    patience: Patience
    since: float
    """When it last got on, or was idle."""
    _last: tuple[int, ...] = field(default=(), init=False)
    _busy: bool = field(default=False, init=False)

    def take(self, now: float, *, busy: bool, progress: tuple[int, ...]) -> bool:
        """An answer; whether the stage is hung."""
        if progress != self._last or not (busy and self._busy):
            if progress != self._last and busy and self._busy and self._last:
                self.patience.longest_s = max(self.patience.longest_s, now - self.since - PERIOD_S)
            self.since, self._last, self._busy = now, progress, busy
            return False
        if now - self.since < self.patience.limit_s(now):
            return False
        self.patience.condemned(now)
        return True
