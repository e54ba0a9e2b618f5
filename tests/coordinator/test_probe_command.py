"""`trireme probe`, as typer runs it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trireme_coordinator.commands import probe
from trireme_coordinator.nodes_file import parse_nodes, read_nodes
from trireme_coordinator.placement import Machine
from trireme_proto.errors import ConfigurationError
from trireme_worker import probe as measuring

MEASURED = measuring.Measured(ram_gb=21.987654, read_gb_s=17.123456, int8_gmac_s=412.3456, cores=2)
EXPECTED = Machine("here", ram_gb=21.99, read_gb_s=17.12, int8_gmac_s=412.3, cores=2)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "measure", lambda threads: MEASURED)


def run(*arguments: str):
    app = typer.Typer()
    app.command()(probe)
    return CliRunner().invoke(app, ["--name", "here", *arguments])


def test_it_prints_a_file_for_plan() -> None:
    assert parse_nodes(run().stdout.encode()) == (EXPECTED,)


def test_it_writes_a_file_for_plan(tmp_path: Path) -> None:
    result = run("-o", str(tmp_path / "nodes.yaml"))
    assert result.stdout == f"{tmp_path}/nodes.yaml: 17.12 GB/s, 412.3 GMAC/s, 21.99 GB free\n"
    assert read_nodes(tmp_path / "nodes.yaml") == (EXPECTED,)


def test_it_prints_json_for_machines() -> None:
    assert parse_nodes(run("--json").stdout.encode()) == (EXPECTED,)  # JSON is YAML
    assert json.loads(run("--json").stdout)["nodes"][0]["cores"] == 2


def test_mistakes_are_typed(tmp_path: Path) -> None:
    wrong = run("-o", str(tmp_path / "no" / "nodes.yaml")).exception
    assert isinstance(wrong, ConfigurationError)
    assert wrong.message == "cannot write 'nodes.yaml': No such file or directory"
    assert isinstance(run("--name", "x" * 129).exception, ConfigurationError)


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nodes file may hold the probes of many machines."""
    (tmp_path / "nodes.yaml").write_text("nodes: []")
    real = Path.write_text

    def full(path: Path, text: str, encoding: str) -> None:
        real(path, text[:5], encoding)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        wrong = run("-o", str(tmp_path / "nodes.yaml")).exception
    assert isinstance(wrong, ConfigurationError)
    assert wrong.message == "cannot write 'nodes.yaml': No space left on device"
    assert (tmp_path / "nodes.yaml").read_text() == "nodes: []"
    assert list(tmp_path.iterdir()) == [tmp_path / "nodes.yaml"]
