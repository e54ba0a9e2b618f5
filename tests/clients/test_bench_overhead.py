"""`trireme bench overhead`: the service's speed beside the bare loop's, with stand-ins for both."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from trireme.cli import overhead
from trireme_proto.errors import ConfigurationError

STUB = Path(__file__).with_name("stub_server.py")
LOOP = """import json, sys
print(json.dumps({"tokens_per_s": 40.0, "asked": sys.argv[1:]}))
"""


@pytest.fixture
def served(monkeypatch, tmp_path):
    """The stub in place of every server; the stages that were asked for."""
    asked = []

    def command(stages, *options):
        asked.append((stages, *options))
        return [sys.executable, str(STUB), str(tmp_path / "pids"), "good"]

    monkeypatch.setattr(overhead, "serve_command", command)
    return asked


def test_each_answer_lies_between_two_bare_loops(served, monkeypatch):
    speeds = iter((10.0, 20.0, 40.0, 60.0, *[24.0] * 4))
    answers = iter((99.0, 12.0, 15.0, 40.0, *[12.0] * 4))  # the first one of each server warms up
    monkeypatch.setattr(overhead, "_bare", lambda *_: next(speeds))
    monkeypatch.setattr(overhead, "_answer", lambda *_: next(answers))
    one, two = overhead.measure(Path("pack"), (1, 2), 1, 32, 3, lambda _: None)
    options = ("--threads", "1", "--speculation", "off", "pack")
    assert served == [(1, *options), (2, *options)]
    assert (one.tokens_per_s, one.bare_tokens_per_s, one.of_bare, one.bare_drift) == (15.0, 30.0, 0.8, 6.0)
    assert (two.tokens_per_s, two.bare_tokens_per_s, two.of_bare, two.bare_drift) == (12.0, 24.0, 0.5, 1.0)


def test_answers_are_real_ones(served, monkeypatch):
    monkeypatch.setattr(overhead, "_bare", lambda *_: 1e9)
    (result,) = overhead.measure(Path("pack"), (1,), 1, 32, 3, lambda _: None)
    assert 0 < result.tokens_per_s < 1e9
    with pytest.raises(ConfigurationError, match="an answer has 9 tokens"):
        overhead.measure(Path("pack"), (1,), 1, 9, 1, lambda _: None)


def test_the_bare_loop_is_another_process(monkeypatch, tmp_path):
    (tmp_path / "trireme.py").write_text(LOOP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = []
    assert overhead._bare(Path("a pack"), 2, 64, said.append) == 40.0
    assert said == ["the bare kernel loop"]
    (tmp_path / "trireme.py").write_text("import sys; sys.exit('error: no such pack')")
    with pytest.raises(ConfigurationError, match="the bare loop does not run: error: no such pack"):
        overhead._bare(Path("a pack"), 2, 64, said.append)


def test_results_are_json():
    made = overhead.Overhead("p", 1, 1, 32, 3, 9.5, 10.0, 0.95, 1.0)
    assert json.loads(json.dumps(asdict(made)))["of_bare"] == 0.95
