"""The catalogue is what docs/metrics.md says, and what the conventions ask for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from trireme_coordinator.metrics.catalogue import FAMILIES
from trireme_coordinator.metrics.values import Readings

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) ?\| (.*?) \| .*\|")
GENAI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


def documented() -> dict[str, tuple[str, set[str]]]:
    return {
        row[1]: (row[2], labels(row[1], row[3]))
        for row in map(ROW.fullmatch, DOCS.read_text().splitlines())
        if row is not None
    }


def labels(name: str, cell: str) -> set[str]:
    found = set(re.findall(r"`(\w+)`", cell)) | (set(GENAI) if cell.startswith("G") else set())
    return found | ({"stage", "node"} if name.startswith("trireme_stage_") else set())


def test_the_documentation_has_every_metric_with_its_type_and_labels() -> None:
    assert documented() == {name: (family.kind, set(family.labels)) for name, family in FAMILIES.items()}


def test_names_say_what_they_are() -> None:
    suffixes = {"s": "_seconds", "bytes": "_bytes", "J": "_joules"}
    for name, family in FAMILIES.items():
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert name.removesuffix("_total").endswith(suffixes.get(family.unit, "")), name
        assert family.meaning


def test_names_of_the_conventions() -> None:
    ours = {family.otel_name for family in FAMILIES.values() if family.name.startswith("gen_ai_")}
    theirs = {getattr(gen_ai_metrics, name) for name in dir(gen_ai_metrics) if name.startswith("GEN_AI_SERVER_")}
    assert ours == theirs


def test_only_what_is_in_the_catalogue_goes_out() -> None:
    readings = Readings()
    with pytest.raises(KeyError):
        readings.put("trireme_made_up", 1)
    with pytest.raises(ValueError, match="labels"):
        readings.put("trireme_redis_up", 1)
