"""Strict lint of the chart with each values file, and what is generated is up to date."""

from __future__ import annotations

import subprocess
import sys

import helm_python
import pytest
from tests.helm.rendering import CHART, ROOT, VALUES, values_of

_INFO = 1


@pytest.mark.parametrize("name", VALUES)
def test_lints(name: str) -> None:
    report = helm_python.lint(CHART, values_of(name), strict=True, kube_version="v1.34.0")
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > _INFO] == []


@pytest.mark.parametrize("script", ["values_reference.py", "shapes.py", "key_tables.py"])
def test_what_is_generated_is_up_to_date(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "helm" / script, "--check"], check=False)
    assert done.returncode == 0, f"run: python helm/{script}"


def test_the_chart_has_the_projects_version() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = helm_python.Chart.load(CHART).metadata
    assert metadata["appVersion"] == project["version"]
    assert metadata["description"].startswith("Serves ternary (BitNet b1.58) large language models")
