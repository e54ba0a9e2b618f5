"""`trireme bench scheduler`: what it measures, and what it prints."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from trireme_coordinator.commands import bench
from trireme_coordinator.scheduler_bench import SEQUENCES, measure


@pytest.mark.parametrize(("sequences", "tenants"), [(8, 1), (40, 7)])
def test_everybody_decodes(sequences: int, tenants: int) -> None:
    cost = measure(sequences, 500, tenants=tenants)
    assert cost.sequences == sequences
    assert cost.tokens >= 500
    assert 0 < cost.schedule_us < cost.total_us


def test_one_json_object() -> None:
    result = CliRunner().invoke(bench, ["scheduler", "--tokens", "1000", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert [row["sequences"] for row in told["rows"]] == list(SEQUENCES)
    assert all(row["total_us"] > 0 for row in told["rows"])


def test_a_table() -> None:
    result = CliRunner().invoke(bench, ["scheduler", "--tokens", "1000", "--tenants", "9"])
    assert result.exit_code == 0, result.output
    assert "1000" in result.output
