"""`trireme warmup`: a line for people, JSON for machines, progress beside it, one sentence for a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trireme.cli import lazy, main
from trireme_worker import warmup
from trireme_worker.warmup import Group

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The entry point as pyproject.toml has it, groups that compile nothing, and an empty cache."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][lazy.GROUP]
    point = EntryPoint("warmup", points["warmup"], lazy.GROUP)
    monkeypatch.setattr(lazy, "entry_points", lambda group: [point] if group == lazy.GROUP else [])
    monkeypatch.setattr(warmup, "kernel_groups", lambda: (Group("a", lambda: None), Group("b", lambda: None)))
    monkeypatch.setenv("TRIREME_CACHE_DIR", str(tmp_path / "cache"))


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["warmup", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert set(found) == {"folder", "seconds", "compiled", "cached"}
    assert Path(found["folder"]).parent == tmp_path / "cache"
    assert (found["compiled"], found["cached"]) == (0, 0)
    assert shown.err.splitlines()[1:] == ["0/2 a", "1/2 b", "2/2 done"]
    assert shown.err.startswith("Compiling the kernels, once for this machine")


def test_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    assert capsys.readouterr().out.startswith("0 kernels compiled, 0 cached, in 0.0 s: ")


def test_a_folder_that_others_may_write_to_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert main(["warmup"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("command", ["warmup", "probe"])
def test_a_process_that_cannot_have_its_cache_says_so_in_one_sentence(command: str, tmp_path: Path) -> None:
    """Unlike above, the kernels are not imported yet: this is what a user meets."""
    (tmp_path / "a-file").touch()
    module = {"warmup": "trireme_worker.commands:warmup", "probe": "trireme_coordinator.commands:probe"}[command]
    code = f"""
import sys
from importlib.metadata import EntryPoint
from trireme.cli import lazy, main
lazy.entry_points = lambda group: [EntryPoint({command!r}, {module!r}, lazy.GROUP)]
sys.exit(main([{command!r}]))
"""
    environment = {**os.environ, "TRIREME_CACHE_DIR": str(tmp_path / "a-file")}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr == f"error: cannot create {tmp_path}/a-file: set TRIREME_CACHE_DIR to a folder of your own\n"
