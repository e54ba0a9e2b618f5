"""What happened, as events: written as one JSON line each while it happens, read back by the checker.

Owns the format alone. Every event has a time `t`: seconds on the suite's monotonic clock since the run began. Knows
neither how faults are injected nor what is right or wrong.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class CallBegan:
    """A client sent a request."""

    t: float
    call: int
    client: int
    request: str
    """Name of the request: its answer does not depend on when, by whom or how often it is asked for."""
    seconds: float
    """The deadline, from `t`."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A message with tokens arrived."""

    t: float
    call: int
    index: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller cancelled its own call."""

    t: float
    call: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over."""

    t: float
    call: int
    status: str
    """"OK", the reason of a typed error, or "UNTYPED" for anything else that was raised."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class FaultBegan:
    """The nemesis did it."""

    t: float
    fault: int
    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class FaultEnded:
    """The nemesis took it back; at once, where there is nothing to take back."""

    t: float
    fault: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Work of an epoch that is over was offered to a stage."""

    t: float
    stage: str
    epoch: int
    """Of the stage."""
    offered: int
    """Of the work; lower."""
    accepted: bool


@dataclass(frozen=True, slots=True)
class Left:
    """CPU seconds that the rest of the machine has left to us since the run began, used or not."""

    t: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast this machine computes: megabytes hashed in a CPU second. For people to read; no verdict hangs on it."""

    t: float
    mb_per_cpu_s: float


@dataclass(frozen=True, slots=True)
class Books:
    """What is held, with no client about: "before" the clients began and "after" they were done."""

    t: float
    when: str
    values: dict[str, float]


Event = CallBegan | Tokens | Cancelled | CallEnded | FaultBegan | FaultEnded | Probe | Left | Pace | Books
_CLASSES: dict[str, type[Any]] = {cls.__name__: cls for cls in Event.__args__}


def line_of(event: Event) -> str:
    """One JSON object, without the newline."""
    return json.dumps({"event": type(event).__name__} | dataclasses.asdict(event))


def event_of(line: str) -> Event:
    """The event of a line. ValueError, TypeError or KeyError where it is none."""
    fields = json.loads(line)
    cls = _CLASSES[fields.pop("event")]
    if "ids" in fields:
        fields["ids"] = tuple(fields["ids"])
    event: Event = cls(**fields)
    return event


def read(path: Path) -> list[Event]:
    """All events of a file."""
    return [event_of(line) for line in path.read_text().splitlines()]


class History:
    """The events so far; each is in the file as soon as it is added. A context manager."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.events: list[Event] = []
        self._clock, self._start = clock, clock()
        self._file = path.open("w", buffering=1)

    def now(self) -> float:
        """Seconds since the run began."""
        return round(self._clock() - self._start, 4)

    def add(self, event: Event) -> None:
        """Remembers and writes."""
        self.events.append(event)
        self._file.write(line_of(event) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def around(events: Iterable[Event], t: float, seconds: float, call: int | None) -> list[Event]:
    """The part of a history that shows what happened at `t`: one call's events, and what the nemesis did."""
    nemesis = FaultBegan | FaultEnded | Probe
    return [e for e in events if abs(e.t - t) <= seconds and (isinstance(e, nemesis) or _of(e) == call is not None)]


def _of(event: Event) -> int | None:
    return getattr(event, "call", None)
