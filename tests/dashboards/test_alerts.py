"""Every alert says how bad it is, what is wrong and where to read on; and fires where it should (promtool)."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from tests.dashboards.files import ROOT, RULES, RUNBOOKS, Alert, alerts

from trireme.cli import main

CASES = Path(__file__).parent / "alerts"
_ALERTS = alerts()
_EACH = pytest.mark.parametrize("alert", _ALERTS, ids=lambda alert: alert.name)
_PARTS = ("What you see", "What it means", "How to look", "What to do", "What not to do")
_COMMAND = re.compile(r"(?:`|\$ )trireme ([a-z][^`\n#]*)")
_PAGES = [*sorted(RUNBOOKS.glob("*.md")), ROOT / "docs" / "dashboards.md"]
_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")


def _cases(path: Path) -> list[tuple[str, bool]]:
    """(alert, whether it is expected to fire) of each moment that a file of tests looks at."""
    tests = yaml.safe_load(path.read_text())["tests"]
    return [(each["alertname"], bool(each["exp_alerts"])) for test in tests for each in test["alert_rule_test"]]


def _written() -> set[tuple[str, str]]:
    """(command, option or "") of every `trireme ...` on the pages, and of every `--option` of `serve` named alone."""
    found = {("serve", option) for page in _PAGES for option in re.findall(r"`(--[a-z-]+)[ `]", page.read_text())}
    for line in (line for page in _PAGES for line in _COMMAND.findall(page.read_text())):
        words = line.split()
        command = " ".join(words[: 2 if words[0] == "sessions" else 1])
        found |= {(command, option) for option in ("", *(word for word in words if word.startswith("--")))}
    return found - {("serve", "--target")}


def test_names_are_given_once() -> None:
    names = [alert.name for alert in _ALERTS]
    assert len(set(names)) == len(names) >= 10


@_EACH
def test_says_what_is_needed(alert: Alert) -> None:
    assert alert.name.startswith("Trireme")
    assert alert.rule["labels"] in ({"severity": "warning"}, {"severity": "critical"})
    assert set(alert.rule["annotations"]) == {"summary", "runbook_url"}
    assert "for" in alert.rule, "said also where it is 0s"


@_EACH
def test_has_a_runbook(alert: Alert) -> None:
    assert alert.rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert.name}.md"
    text = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(_PARTS)
    assert "](README.md)" in text
    assert f"({alert.name}.md)" in (RUNBOOKS / "README.md").read_text()


def test_every_runbook_has_an_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {alert.name for alert in _ALERTS}


def test_links_between_pages_lead_somewhere() -> None:
    for page in _PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("command", sorted({command for command, _ in _written()}))
def test_commands_of_pages_exist(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "trace" and find_spec("trireme.waterfall") is None:
        pytest.skip("this version has no `trireme trace`")
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*command.split(), "--help"]) == 0
    told = capsys.readouterr().out
    for option in sorted(option for name, option in _written() if name == command):
        assert option in told, f"trireme {command} has no {option}"


@_EACH
def test_firing_and_keeping_quiet_are_both_tested(alert: Alert) -> None:
    looked_at = _cases(CASES / alert.file.name)
    assert (alert.name, True) in looked_at
    assert (alert.name, False) in looked_at


@_promtool
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rules_are_well_formed(path: Path) -> None:
    done = subprocess.run(["promtool", "check", "rules", path], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@_promtool
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_alerts_fire(path: Path) -> None:
    command = ["promtool", "test", "rules", path.name]
    done = subprocess.run(command, cwd=CASES, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
