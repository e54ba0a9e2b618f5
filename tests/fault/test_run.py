"""A short run of the suite on a real cluster, as `make fault` is a long one; its seed is fixed.

In a process of its own, which moves into namespaces of its own where it may.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]


def test_a_short_run_shows_no_violation(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.fault", "--seed", "5", "--seconds", "85", "--share", "0.7"]
    command += ["--report", str(report), "--history", str(tmp_path / "history.jsonl")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    assert report.exists(), done.stderr[-4000:]
    figures = json.loads(report.read_text())
    assert figures["violations"] == [], done.stderr[-8000:]
    assert done.returncode == 0
    assert sum(figures["faults"].values()) >= 3
    assert figures["tokens"] > 1000
    assert figures["old_epoch_offers"] > 10
