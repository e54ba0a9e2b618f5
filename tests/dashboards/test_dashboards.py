"""The committed dashboards: as the generator writes them, as Grafana's schema has it, and laid out without overlaps."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.dashboards import schema
from tests.dashboards.files import DASHBOARDS, ROOT, choices, dashboard, panels

_EACH = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_what_is_generated_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "helm" / "dashboards.py", "--check"], check=False)
    assert done.returncode == 0, "run: python helm/dashboards.py"


def test_the_three_are_there() -> None:
    assert [path.stem for path in DASHBOARDS] == ["capacity", "pipeline", "requests"]


@_EACH
def test_follows_grafanas_schema(path: Path) -> None:
    assert schema.mistakes(dashboard(path)) == []


def _panel(data: dict[str, Any]) -> dict[str, Any]:
    return data["panels"][1]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: d.update(tittle="x"), "dashboard has no field tittle"),
        (lambda d: d.update(tags="trireme"), "dashboard.tags is no list"),
        (lambda d: _panel(d).update(title=3), "dashboard.panels[1].title is 3, no str"),
        (lambda d: _panel(d)["targets"][0].update(exprs=""), "dashboard.panels[1].targets[0] has no field exprs"),
        (lambda d: _panel(d)["gridPos"].update(w="wide"), "is 'wide', no int"),
        (lambda d: _panel(d)["options"].update(colorMode="loud"), "is 'loud', no BigValueColorMode"),
        (lambda d: _panel(d)["fieldConfig"]["defaults"].update(limit=1), "has no field limit"),
        (
            lambda d: _panel(d).update(transformations=[{"idd": "organize", "id": "organize", "options": {}}]),
            "has no field idd",
        ),
        (lambda d: d["templating"]["list"][0].update(type="guess"), "is 'guess', no VariableType"),
    ],
)
def test_the_schema_is_strict(spoil: Any, told: str) -> None:
    data = dashboard(DASHBOARDS[2])
    spoil(data)
    assert any(told in each for each in schema.mistakes(data)), schema.mistakes(data)


@_EACH
def test_panels_lie_beside_each_other(path: Path) -> None:
    placed = [(p["title"], p["gridPos"]) for p in dashboard(path)["panels"]]
    for title, at in placed:
        assert at["x"] + at["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(placed, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (one, other)


@_EACH
def test_every_panel_says_what_it_answers(path: Path) -> None:
    for panel in panels(path):
        assert "?" in panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"]["uid"] == "${source}", panel["title"]


@_EACH
def test_numbers_are_given_once(path: Path) -> None:
    assert max(Counter(panel["id"] for panel in dashboard(path)["panels"]).values()) == 1


def test_what_is_chosen_is_used() -> None:
    assert {variable for variable, _, _ in choices()} == {"namespace", "job"}
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                selectors, chosen = (
                    target["expr"].count("{"),
                    target["expr"].count('{namespace=~"$namespace",job=~"$job"'),
                )
                assert selectors == chosen > 0, target["expr"]
