"""docs/metrics.md as data: which series a scrape may have, and with which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.dashboards.files import ROOT

PAGE = ROOT / "docs" / "metrics.md"
SCRAPED = frozenset({"namespace", "job", "instance"})
"""Labels that Prometheus adds."""
_ROW = re.compile(r"^\| `(\w+)` \| (histogram|counter|gauge) \|([^|]*)\|")
_LABEL = re.compile(r"`(\w+)`")
_GEN_AI = frozenset({"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"})
_STAGE = frozenset({"stage", "node"})


@dataclass(frozen=True)
class Metric:
    """A row of the page."""

    name: str
    kind: str
    labels: frozenset[str]

    def series(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Names as they are scraped, with their labels."""
        if self.kind != "histogram":
            yield self.name, self.labels
            return
        yield f"{self.name}_bucket", self.labels | {"le"}
        yield f"{self.name}_sum", self.labels
        yield f"{self.name}_count", self.labels


def metrics() -> list[Metric]:
    found = [_ROW.match(line) for line in PAGE.read_text().splitlines()]
    return [_metric(each[1], each[2], each[3]) for each in found if each]


def series() -> dict[str, frozenset[str]]:
    """Labels of every series that the page promises."""
    return {name: labels | SCRAPED for metric in metrics() for name, labels in metric.series()}


def _metric(name: str, kind: str, cell: str) -> Metric:
    labels = frozenset(_LABEL.findall(cell))
    if re.search(r"\bG\b", cell):
        labels |= _GEN_AI
    if name.startswith("trireme_stage_"):
        labels |= _STAGE
    return Metric(name, kind, labels)
