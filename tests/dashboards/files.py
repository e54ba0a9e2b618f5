"""The committed dashboards and rules, read as Grafana and Prometheus read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "trireme"
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RULES = sorted((CHART / "rules").glob("*.yaml"))
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_CHOICE = re.compile(r"label_values\((.*), (\w+)\)")


@dataclass(frozen=True)
class Asked:
    """One query, and where it was found."""

    where: str
    query: str

    def filled(self, **values: str) -> Asked:
        """With Grafana's variables in place; KeyError where one has no value."""
        return Asked(self.where, _VARIABLE.sub(lambda name: values[name[1] or name[2]], self.query))


@dataclass(frozen=True)
class Alert:
    name: str
    rule: dict[str, Any]
    file: Path


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def panels(path: Path) -> Iterator[dict[str, Any]]:
    """All but the rows, those of folded rows too."""
    for each in dashboard(path)["panels"]:
        yield from each.get("panels", ()) if each["type"] == "row" else [each]


def panel_queries() -> list[Asked]:
    return [
        Asked(f"{path.stem}: {panel['title']}: {target['refId']}", target["expr"])
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel["targets"]
    ]


def annotation_queries() -> list[Asked]:
    return [Asked(f"{p.stem}: {a['name']}", a["expr"]) for p in DASHBOARDS for a in dashboard(p)["annotations"]["list"]]


def choices() -> list[tuple[str, str, str]]:
    """(variable, series, label) of each that is chosen from labels' values."""
    return [
        (each["name"], *_CHOICE.fullmatch(each["query"]).groups())
        for path in DASHBOARDS
        for each in dashboard(path)["templating"]["list"]
        if each["type"] == "query"
    ]


def alerts() -> list[Alert]:
    return [
        Alert(rule["alert"], rule, path)
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
