"""Histograms, counters by label, and readings of them. Written on the event loop alone, so without locks.

A histogram is two lists, and adding to it a search and two additions: the library's own take a lock and make an object
for each value, which is too much for each token. Labels that come from outside are bounded: see `Bounded`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trireme_coordinator.metrics.catalogue import FAMILIES, Family

LATENCY_BOUNDS = (
    *(0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0),
)
"""Seconds: tokens of small models take 0.3 ms, long prompts of large ones minutes."""
HOP_BOUNDS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds, of messages."""
OTHER = "other"
DEFAULT_TENANT = "default"
"""The label of callers without a tenant: all of them where there are no keys."""
_LONGEST_LABEL = 128


class Histogram:
    """Counts of values by upper bounds, which are inclusive; the last count is of what is above all of them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """`times` equal values."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        """Of all values."""
        return sum(self.counts)


class Bounded:
    """Values of a label: the first `most` different ones as they are, others as "other"."""

    def __init__(self, most: int) -> None:
        self._most, self._known = most, set[str]()
        self.folded = 0
        """Times that a value was not told apart."""

    def of(self, value: str) -> str:
        """The label's value."""
        if value in self._known:
            return value
        if len(self._known) < self._most and len(value) <= _LONGEST_LABEL:
            self._known.add(value)
            return value
        self.folded += 1
        return OTHER


@dataclass(frozen=True, slots=True)
class Reading:
    """One series' value now."""

    labels: tuple[str, ...]
    value: float | Histogram


@dataclass(slots=True)
class Readings:
    """Values of series by family; only those of the catalogue, with its labels."""

    by_name: dict[str, list[Reading]] = field(default_factory=dict)

    def put(self, name: str, value: float | Histogram, *labels: str) -> None:
        """KeyError for a family that is not in the catalogue, ValueError for other labels than it has."""
        if len(labels) != len(FAMILIES[name].labels):
            raise ValueError(f"{name} has the labels {FAMILIES[name].labels}")
        self.by_name.setdefault(name, []).append(Reading(labels, value))

    def put_all(self, name: str, values: Mapping[tuple[str, ...], float | Histogram]) -> None:
        """The values of a family, by their labels."""
        for labels, value in values.items():
            self.put(name, value, *labels)

    def families(self) -> Iterable[tuple[Family, list[Reading]]]:
        """What there are readings of, in the catalogue's order."""
        return ((family, self.by_name[name]) for name, family in FAMILIES.items() if name in self.by_name)
