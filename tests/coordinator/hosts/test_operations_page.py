"""Commands of docs/operations.md exist, with their options, and its hosts file is one."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
import typer
from rich.console import Console

from trireme.cli.app import app
from trireme_coordinator.hosts.hosts_file import read_hosts
from trireme_coordinator.model_costs import costs_of
from trireme_coordinator.nodes_file import parse_nodes
from trireme_coordinator.placement import plan, wishes_for
from trireme_coordinator.plan_report import plan_tables

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
COMMANDS = re.findall(r"^\s*\$ (trireme .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", dict.fromkeys(COMMANDS))
def test_a_command_is_understood(line: str) -> None:
    words = shlex.split(line.split(" #", maxsplit=1)[0])[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    if hasattr(command, "_load"):
        command = command._load()
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context("trireme", words, resilient_parsing=False)
    assert context.params


def test_there_are_commands_to_look_at() -> None:
    assert len(set(COMMANDS)) > 12


def test_the_hosts_file_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "hosts.yaml").write_text(text)
    (tmp_path / "certs" / "stage").mkdir(parents=True)
    for name in ("certs/server.crt", "certs/server.key", "keys.json"):
        (tmp_path / name).touch()
    assert [host.address for host in read_hosts(tmp_path / "hosts.yaml").hosts] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_the_table_is_what_plan_prints() -> None:
    node = "ram_gb: 64, cores: 16, read_gb_s: 38.5, int8_gmac_s: 2100, rtt_ms: 0.2"
    nodes = parse_nodes(("nodes:\n" + "".join(f"  - {{name: big-{n}, {node}}}\n" for n in range(1, 5))).encode())
    costs = costs_of("70b", layout=None, head=None, kv_dtype="int8")
    console = Console(width=500, file=io.StringIO())
    console.print(*plan_tables(plan(costs, nodes, wishes_for(costs, None, None))), sep="\n")
    (table,) = re.findall(r"^```\n(model .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [line.split() for line in console.file.getvalue().splitlines()] == [
        line.split() for line in table.splitlines()
    ]
