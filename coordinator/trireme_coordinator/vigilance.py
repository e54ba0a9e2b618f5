"""When a stage that answers does not get on: the judgement, over samples and times that the caller brings.

Pure: no clock, no network. A stage is hung when its progress stands still while it computes, for longer than it ever
took while it got on. A verdict may be wrong (a disk that is slow, a machine that is full): then the same stage would be
restarted for ever, so each verdict doubles its patience for a while. The same goes for frames between stages: where
some are under way and no stage has anything to do, one of them does not arrive.
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


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one stage last said of itself."""

    steps: int = 0
    progress: int = 0
    busy: bool = False


@dataclass
class Flow:
    """All stages of one epoch, from their answers."""

    stages: int
    patience: Patience
    since: float
    _still: Stillness = field(init=False)
    _pulses: list[Pulse] = field(init=False)

    def __post_init__(self) -> None:
        self._still = Stillness(self.patience, self.since)
        self._pulses = [Pulse()] * self.stages

    def take(self, now: float, stage: int, pulse: Pulse, *, under_way: bool) -> int | None:
        """An answer of one stage; the stage that frames do not reach, where there is one.

        It is the first that has computed less than the one before it. Where all have computed as much, the first one
        waits for what the last one chose, or nothing comes back from it: either way the last one is to be replaced.
        """
        self._pulses[stage] = pulse
        waiting = under_way and not any(each.busy for each in self._pulses)
        progress = tuple(n for each in self._pulses for n in (each.steps, each.progress))
        if not self._still.take(now, busy=waiting, progress=progress):
            return None
        pairs = zip(self._pulses, self._pulses[1:], strict=False)
        return next((i for i, (a, b) in enumerate(pairs, 1) if b.steps < a.steps), self.stages - 1)
