"""What a dashboard is, as values: rows of panels, each a question and the queries that answer it.

Queries are written bare, as docs/metrics.md names metrics: `rate(trireme_requests_total[W])`. `completed` adds what
all of them have in common: the deployment that was chosen at the top of the page, and the window `W` that Grafana fits
to the scrape interval. Knows nothing of Grafana's JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

CHOSEN = 'namespace=~"$namespace",job=~"$job"'
"""Labels that Prometheus adds; both variables also match what lacks the label."""
_METRIC = re.compile(r"\b((?:trireme|gen_ai)_\w+)(?:\{([^}]*)\})?")
_WINDOW = "[W]"


class Kind(StrEnum):
    """How a panel looks."""

    SERIES = "series"
    STACK = "stack"
    STAT = "stat"
    TABLE = "table"
    HEATMAP = "heatmap"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL without the chosen deployment, and the name of its series; `{{label}}` in it is the label's value."""

    bare: str
    legend: str = ""

    @property
    def text(self) -> str:
        return completed(self.bare)


@dataclass(frozen=True, slots=True)
class Panel:
    """One question. `unit` is Grafana's name of it; `warn` and `bad` colour a value that reaches them."""

    title: str
    answers: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.SERIES
    width: int = 12
    top: float | None = None
    warn: float | None = None
    bad: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; its file is `name`.json and its address in Grafana `trireme-name`."""

    name: str
    title: str
    answers: str
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels


def completed(bare: str) -> str:
    """The query as Grafana sends it, but for variables."""
    return _METRIC.sub(_chosen, bare).replace(_WINDOW, "[$__rate_interval]")


def quantiles(histogram: str, *wanted: float, by: str = "") -> tuple[Query, ...]:
    """One query for each quantile of a histogram, of all series together or for each value of the labels `by`."""
    groups = f"le, {by}" if by else "le"
    shown = "".join(f" {{{{{label.strip()}}}}}" for label in by.split(",") if label)
    return tuple(
        Query(f"histogram_quantile({q}, sum by ({groups}) (rate({histogram}_bucket[W])))", f"p{q * 100:g}{shown}")
        for q in wanted
    )


def _chosen(found: re.Match[str]) -> str:
    own = f",{found[2]}" if found[2] else ""
    return f"{found[1]}{{{CHOSEN}{own}}}"
