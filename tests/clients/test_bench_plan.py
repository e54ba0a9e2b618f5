"""`trireme bench plan`: a prediction beside a deployment, with stand-ins for the other commands."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from trireme.cli import deployment
from trireme.cli.deployment import Asked, measure
from trireme_proto.errors import ConfigurationError

STUB = Path(__file__).with_name("stub_server.py")
ASKED = Asked(Path("pack"), stages=2, threads=1, prompt=4, tokens=32, rounds=3)
PLAN = {
    "model": "m",
    "bytes_per_token": 2_000_000_000,
    "fp16_bytes_per_token": 20_000_000_000,
    "tokens_per_s_single": 9.0,
    "ttft_s": 0.5,
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """The commands that were run; `probe` measures 10, 20, 30, ... GB/s in turn."""
    calls: list[tuple[str, ...]] = []

    def command(stages: int, *options: str) -> list[str]:
        calls.append(("serve", str(stages), *options))
        return [sys.executable, str(STUB), str(tmp_path / "pids"), "good"]

    def run(*arguments: str) -> Any:
        calls.append(arguments)
        if arguments[0] == "plan":
            nodes = json.loads(Path(arguments[arguments.index("--nodes") + 1]).read_text())["nodes"]
            calls.append(tuple(f"{node['name']}: {node['read_gb_s']}" for node in nodes))
            return PLAN
        probes = sum(call[0] == "probe" for call in calls)
        return {"nodes": [{"name": "n", "ram_gb": 8.0, "read_gb_s": 10.0 * probes, "int8_gmac_s": 100.0}]}

    monkeypatch.setattr(deployment, "serve_command", command)
    monkeypatch.setattr(deployment, "_json", run)
    return calls


def test_probes_take_turns_with_the_answers(ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(ASKED, lambda _: None)
    # before the server: 10; beside the answers: 20, then 30 (which warms up), 40, 50, 60
    assert [call[0] for call in ran] == ["probe", "serve", *["probe"] * 5, "plan", "stage-0: 45.0"]
    assert ran[-1] == ("stage-0: 45.0", "stage-1: 45.0")
    assert (found.read_gb_s, found.read_drift) == (45.0, 2.0)
    assert (found.limit_tokens_per_s, found.of_fp16) == (22.5, 0.1)
    assert found.of_limit == pytest.approx(found.tokens_per_s / 22.5)
    assert found.tokens_per_s_error == pytest.approx(9.0 / found.tokens_per_s - 1)
    assert found.ttft_error == pytest.approx(0.5 / found.ttft_s - 1)
    assert len(found.rss_bytes) == 2
    assert json.loads(json.dumps(asdict(found)))["planned_tokens_per_s"] == 9.0
    assert "--stages" in ran[-2]


def test_the_pages_hold_the_prompt_and_the_answer(ran: list[tuple[str, ...]]) -> None:
    measure(ASKED, lambda _: None)
    served = ran[1]
    assert served[served.index("--kv-tokens") + 1] == "48"


def test_a_short_answer_makes_no_figure(ran: list[tuple[str, ...]]) -> None:
    short = Asked(Path("pack"), stages=2, threads=1, prompt=4, tokens=4, rounds=1)
    with pytest.raises(ConfigurationError, match="tokens; 8 are needed for a figure"):
        measure(short, lambda _: None)


def test_a_command_that_does_not_run_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "trireme.py").write_text("import sys; sys.exit('error: no such thing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="`trireme probe` does not run: error: no such thing"):
        deployment._json("probe")
