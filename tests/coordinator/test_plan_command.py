"""`trireme plan`, as typer runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trireme.cli import lazy, main
from trireme_worker.pack import default_pack

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points as pyproject.toml has them, whatever is installed."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][lazy.GROUP]
    found = [EntryPoint(name, value, lazy.GROUP) for name, value in points.items()]
    monkeypatch.setattr(lazy, "entry_points", lambda group: found if group == lazy.GROUP else [])


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    path = tmp_path / "nodes.yaml"
    path.write_text(
        "nodes:\n"
        "- {name: big, ram_gb: 64, read_gb_s: 40, int8_gmac_s: 2000}\n"
        "- {name: half, ram_gb: 64, read_gb_s: 20, int8_gmac_s: 1000, cores: 8}\n"
        "- {name: far, ram_gb: 64, read_gb_s: 40, int8_gmac_s: 2000, rtt_ms: 5000}\n"
    )
    return path


def test_json_for_machines(nodes: Path, capsys) -> None:
    assert main(["plan", "70b", "--nodes", str(nodes), "--layout", "1.6bit", "--head", "int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= {"stages", "left_out", "tokens_per_s_single", "tokens_per_s_aggregate", "ttft_s", "kv_tokens"}
    assert [(stage["node"], stage["layers"]) for stage in found["stages"]] == [("big", [0, 57]), ("half", [57, 80])]
    assert [each["node"] for each in found["left_out"]] == ["far"]
    assert found["left_out"][0]["spare"] is True
    assert {(each["change"], each["node"]) for each in found["what_if"]} == {
        (change, node) for change in ("add", "remove") for node in ("big", "half", "far")
    }
    assert found["what_if"][0]["tokens_per_s_aggregate"] > found["tokens_per_s_aggregate"] > 0
    assert (found["prompt"], found["context"]) == (512, 1024)


def test_tables_for_people(nodes: Path, capsys) -> None:
    assert main(["plan", str(default_pack()), "--nodes", str(nodes), "--prompt", "100", "--context", "200"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "trireme-tiny",
        "tokens/s at 200 positions",
        "after a prompt of 100 tokens",
        "left out",
        "without big",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["9b", "--nodes", "{nodes}"], "'9b' is neither a shape"),
        (["2b4t", "--nodes", "nowhere.yaml"], "The nodes file 'nowhere.yaml' cannot be read"),
        (["2b4t", "--nodes", "{nodes}", "--prompt", "0"], "prompts and contexts of at least one token"),
        (["2b4t", "--nodes", "{nodes}", "--context", "9999"], "holds 4096 tokens"),
        (["2b4t"], "--nodes"),
        (["{folder}", "--nodes", "{nodes}"], "there is no pack at"),
    ],
)
def test_mistakes_are_one_sentence(nodes: Path, capsys, arguments: list[str], sentence: str) -> None:
    filled = [each.format(nodes=nodes, folder=nodes.parent) for each in arguments]
    assert main(["plan", *filled]) in {1, 2}
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.startswith("error: ")
    assert len(shown.splitlines()) == 1


def test_what_is_heavy_is_imported_when_the_command_runs() -> None:
    code = (
        "import sys, trireme_coordinator.commands;"
        "print([m for m in ('numpy', 'numba', 'yaml', 'ray') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
