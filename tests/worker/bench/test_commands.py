"""`trireme bench`: a group of commands that joins lazily, tables for people, JSON for machines."""

import json
import re
import signal
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trireme.cli import lazy, main
from trireme_worker.bench import limits, suite
from trireme_worker.commands.bench import progress
from trireme_worker.pack import default_pack

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def joined(monkeypatch):
    """The entry point as pyproject.toml has it, and limits that take no time."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][lazy.GROUP]
    point = EntryPoint("bench", points["bench"], lazy.GROUP)
    monkeypatch.setattr(lazy, "entry_points", lambda group: [point] if group == lazy.GROUP else [])
    monkeypatch.setattr(limits, "READ_BYTES", 1 << 16)
    monkeypatch.setattr(limits, "DOT_STEPS", 10)
    monkeypatch.setattr(suite, "HEAD_SHAPE", (1000, 64))


def test_the_group_is_listed_with_its_commands(capsys):
    assert main(["--help"]) == 0
    assert re.search("bench +Measure the kernels", capsys.readouterr().out)
    assert main(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    for command, words in {"decode": "Time decoding", "prefill": "Time the first", "peers": "Compare"}.items():
        assert re.search(f"{command} +{words}", shown)
    assert main(["bench", "decode", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--threads", "--layout", "--context", "--batch", "--head", "--kv", "--json"):
        assert option in shown


def test_help_imports_nothing_heavy(monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("trireme_worker.bench")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["bench", "peers", "--help"]) == 0
    assert not [name for name in sys.modules if name.startswith("trireme_worker.bench")]


DECODE_KEYS = {"tokens_per_s", "bytes_per_token", "read_gb_s", "of_read", "threads", "layout", "isa"}
PREFILL_KEYS = {"tokens_per_s", "gmac_s", "of_vnni_peak"}


def test_decode_prints_json_for_machines(capsys):
    command = ["bench", "decode", str(default_pack()), "--threads", "2", "--layout", "1.6bit", "--context", "20"]
    command += ["--batch", "3", "--head", "int8", "--kv", "float16"]
    assert main([*command, "--rounds", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["head"], found["kv"]) == ("int8", "float16")
    assert set(found) >= DECODE_KEYS
    assert (found["threads"], found["layout"], found["context"], found["batch"]) == (2, "1.6bit", 20, 3)


def test_decode_prints_a_table_for_people(capsys):
    assert main(["bench", "decode", str(default_pack()), "--threads", "1", "--context", "3", "--rounds", "5"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"tokens/s .*[0-9]", shown.out)
    assert "of plain read" in shown.out


def test_prefill_prints_both(capsys):
    command = ["bench", "prefill", str(default_pack()), "--threads", "1", "--tokens", "9", "--rounds", "5"]
    assert main([*command, "--json", "--head", "int8+4bit", "--kv", "int8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= PREFILL_KEYS
    assert (found["head"], found["kv"]) == ("int8+4bit", "int8")
    assert found["tokens"] == 9
    assert main(command) == 0
    assert "of dot product peak" in capsys.readouterr().out


def test_kernels_prints_dispatch_limits_and_targets(capsys):
    assert main(["bench", "kernels", "--threads", "1", "--only", "head", "--rounds", "5"]) == 0
    shown = capsys.readouterr().out
    assert re.search("portable", shown)
    assert shown.count("chosen") >= 1
    assert re.search("matrix x vector / plain read, 1 thread .*>= 0.93 .*not asked for", shown)
    assert main(["bench", "kernels", "--threads", "1", "--only", "head", "--rounds", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= {"isa", "dispatch", "peaks", "targets"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["decode", "9b"], "'9b' is neither a shape"),
        (["decode", "700m", "--layout", "3bit"], "3bit"),
        (["prefill", "700m", "--rounds", "4"], "rounds"),
        (["decode", "700m", "--head", "int4"], "int4"),
        (["decode", "700m", "--kv", "int4"], "int4"),
        (["kernels", "--only", "nothing"], "--only: 'nothing' is none of"),
        (["decode"], "SHAPE|PACK"),
    ],
)
def test_mistakes_are_one_sentence(capsys, arguments, sentence):
    assert main(["bench", *arguments]) in {1, 2}
    shown = capsys.readouterr()
    assert sentence in shown.err
    assert shown.err.count("error: ") == 1
    assert "Traceback" not in shown.err


def test_a_missing_library_of_the_server_is_explained(monkeypatch, capsys):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "trireme_worker.bench":
                raise ModuleNotFoundError("No module named 'numba'", name="numba")

    for name in [n for n in sys.modules if n.startswith("trireme_worker.bench")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    assert main(["bench", "decode", "700m"]) == 1
    assert capsys.readouterr().err == "error: bench needs the server parts: pip install 'trireme-inference[server]'\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_measurement_by_an_exception(number):
    """So that its `finally` blocks remove files and end processes; afterwards signals do what they did before."""
    before = signal.getsignal(number)
    cleaned = []

    def measurement():
        with progress() as report:
            report(1, 2, "something")
            try:
                signal.raise_signal(number)
            finally:
                cleaned.append(number)

    with pytest.raises(SystemExit) as ended:
        measurement()
    assert ended.value.code == 128 + number
    assert cleaned == [number]
    assert signal.getsignal(number) == before
