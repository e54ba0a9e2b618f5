"""What was recorded of each request, and what all of them come to.

Every latency counts from the moment at which a request was to be sent, not from when it was sent: a sender that was
held up must not hide the wait ("coordinated omission").

    scheduled  sent    message 1      message 2        last message
    |----------|-------|--------------|----------------|
    |<----- TTFT ----->|<--- ITL ---->|<----- ITL ---->|
    |<------------------ end to end ------------------>|
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from trireme_proto.errors import ConfigurationError

_SECONDS = {"s": 1.0, "ms": 1e-3}
_TERM = re.compile(r"(?P<name>ttft|itl|e2e)=(?P<value>[0-9]{1,6}(\.[0-9]{1,6})?)(?P<unit>ms|s)")


@dataclass(slots=True)
class Record:
    """One request. Times in seconds, on one clock."""

    scheduled: float
    prompt: int
    sent: float = math.nan
    times: list[float] = field(default_factory=list)
    """When each message with tokens came."""
    tokens: int = 0
    ended: float | None = None
    """None: still under way when the measurement was broken off."""
    error: str = ""
    """Reason of the error that ended it."""

    def take(self, now: float, tokens: int) -> None:
        """A message with so many tokens came."""
        if tokens:
            self.times.append(now)
            self.tokens += tokens

    @property
    def completed(self) -> bool:
        return self.ended is not None and not self.error and bool(self.times)

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.scheduled

    @property
    def itl(self) -> list[float]:
        """Seconds between messages. A message with several tokens, which a slow reader gets, is one."""
        return [after - before for before, after in pairwise(self.times)]

    @property
    def mean_itl(self) -> float:
        """Seconds a token after the first; 0 where there is none."""
        return (self.times[-1] - self.times[0]) / (self.tokens - 1) if self.tokens > 1 else 0.0

    @property
    def e2e(self) -> float:
        """Seconds to the end of the answer."""
        return (self.ended if self.ended is not None else math.nan) - self.scheduled


@dataclass(frozen=True, slots=True)
class Objective:
    """What a request must keep to count as good; None: not asked for. Seconds."""

    ttft: float | None = None
    itl: float | None = None
    """Of the mean over the answer's tokens after the first."""
    e2e: float | None = None

    @classmethod
    def parse(cls, text: str) -> Objective:
        """`ttft=2s,itl=200ms,e2e=30s`, each at most once. ConfigurationError where it is not that."""
        found: dict[str, float] = {}
        for term in (term.strip() for term in text.split(",")):
            match = _TERM.fullmatch(term)
            if match is None or match["name"] in found:
                raise ConfigurationError(f"objective has '{term[:40]}'; write such as ttft=2s,itl=200ms,e2e=30s.")
            found[match["name"]] = float(match["value"]) * _SECONDS[match["unit"]]
        return cls(**found)

    def met(self, record: Record) -> bool:
        """Whether a request was answered in full and in time."""
        kept = ((self.ttft, record.ttft), (self.itl, record.mean_itl), (self.e2e, record.e2e)) if record.times else ()
        return record.completed and all(most is None or value <= most for most, value in kept)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles, seconds; None where nothing was measured."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """The percentiles of some values."""
        ordered = sorted(values)
        return cls(*(nearest_rank(ordered, q) for q in (50, 90, 99))) if ordered else cls()


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The percentile of values in rising order, one of them at least: the least that so many percent do not exceed."""
    return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]


@dataclass(frozen=True, slots=True)
class StageUse:
    """How busy a stage was."""

    stage: int
    node: str
    utilisation: float
    """Share of the time that it computed."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A load's outcome."""

    requests: int
    completed: int
    failed: dict[str, int]
    """Requests by the reason of their error; OVERLOADED are those that the server refused."""
    unfinished: int
    """Under way when the measurement was broken off."""
    seconds: float
    ttft_s: Percentiles
    itl_s: Percentiles
    e2e_s: Percentiles
    sent_late_s: Percentiles
    """How late requests were sent: a sender that cannot keep up shows here."""
    tokens_per_s: float
    prompt_tokens_per_s: float
    requests_per_s: float
    goodput_per_s: float | None
    """Requests a second that met the objective; None without one."""
    stages: tuple[StageUse, ...]
    utilisation: float | None
    """Mean over the stages; None where it is not known."""
    bubble: float | None
    """Share of the stages' time without anything to compute: 1 - utilisation."""


def figures(
    records: Sequence[Record],
    *,
    started: float,
    ended: float,
    objective: Objective | None = None,
    stages: Sequence[StageUse] = (),
) -> Figures:
    """What the records of [started, ended] come to. Latencies are those of completed requests, tokens those of all."""
    seconds = max(ended - started, 1e-9)
    done = [record for record in records if record.completed]
    mean = sum(stage.utilisation for stage in stages) / len(stages) if stages else None
    return Figures(
        requests=len(records),
        completed=len(done),
        failed=dict(sorted(Counter(record.error for record in records if record.error).items())),
        unfinished=sum(record.ended is None for record in records),
        seconds=seconds,
        ttft_s=Percentiles.of([record.ttft for record in done]),
        itl_s=Percentiles.of([gap for record in done for gap in record.itl]),
        e2e_s=Percentiles.of([record.e2e for record in done]),
        sent_late_s=Percentiles.of([r.sent - r.scheduled for r in records if not math.isnan(r.sent)]),
        tokens_per_s=sum(record.tokens for record in records) / seconds,
        prompt_tokens_per_s=sum(record.prompt for record in records if record.times) / seconds,
        requests_per_s=len(done) / seconds,
        goodput_per_s=None if objective is None else sum(map(objective.met, records)) / seconds,
        stages=tuple(stages),
        utilisation=mean,
        bubble=None if mean is None else 1 - mean,
    )
