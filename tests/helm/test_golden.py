"""Nothing changes in what is rendered without somebody seeing it in a review. To accept a change: make helm-golden."""

from __future__ import annotations

import difflib

import pytest
from tests.helm.golden import FOLDER, text
from tests.helm.rendering import VALUES


@pytest.mark.parametrize("name", VALUES)
def test_renders_what_is_recorded(name: str) -> None:
    recorded = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert list(difflib.unified_diff(recorded, text(name).splitlines(), lineterm="")) == []


def test_nothing_is_recorded_that_is_gone() -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(VALUES)
