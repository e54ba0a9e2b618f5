"""The table of targets, and the sections that measure its lines."""

import contextlib
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

import trireme_kernels as kernels
from trireme_proto.errors import ConfigurationError
from trireme_worker.bench import compile_time, contention, products, suite
from trireme_worker.bench.interleave import Timing, interleaved, silent
from trireme_worker.bench.limits import Peaks
from trireme_worker.bench.targets import TARGETS, Line, Target, lines

INFORMATION = Target("c", "time", None, at_least=False, unit="ms")
MORE, LESS = Target("a", "speed", 2.0), Target("b", "time", 2.0, at_least=False, unit="s")


@pytest.mark.parametrize(
    ("target", "measured", "met"),
    [
        (MORE, 2.0, True),
        (MORE, 1.99, False),
        (LESS, 2.0, True),
        (LESS, 2.01, False),
        (MORE, None, None),
        (INFORMATION, 1.0, None),
    ],
)
def test_a_goal_is_met_or_not_or_was_not_measured(target, measured, met):
    assert Line(target, measured).met is met


def test_the_table_has_every_target_once_in_order():
    found = lines({"attention_4096_ms": 4.0}, {"head_4bit_over_int8": "no such kernel"})
    assert [line.target for line in found] == list(TARGETS)
    assert len({target.key for target in TARGETS}) == len(TARGETS)
    told = {line.target.key: line for line in found}
    assert told["attention_4096_ms"].met
    assert told["head_4bit_over_int8"].why_not == "no such kernel"
    assert told["cold_compile_s"].why_not == "not asked for"


def test_products_are_products():
    """Each trial leaves the exact integer product, whatever its layout, tokens and threads."""
    with products.Products((1, 2), rows=96, cols=80) as work:
        for trial in work.trials().values():
            trial.run()
            w, q = trial.run._w, trial.run._q
            exact = q.astype(int) @ kernels.unpack(np.array(w.data), 96, 80, w.layout).T.astype(int)
            assert (trial.run._out == exact.astype(np.float32) * w.scales[0]).all()
        amounts = {name: trial.amount for name, trial in work.trials().items()}
    assert amounts["x 8 tokens, 2 threads"] == 8 * 96 * 80
    nbytes = kernels.packed_bytes(96, 80, "2bit") + 96 // 16 * 4
    assert amounts["x vector, 2bit, 1 threads"] == products.VECTOR_REPEATS * nbytes


def test_figures_of_products_are_shares_of_the_limits(monkeypatch):
    monkeypatch.setattr(products, "preferred_layout", lambda: "1.6bit")
    monkeypatch.setattr(products, "ISA", SimpleNamespace(look_up=True))
    timings = {}
    for n in (1, 2):
        timings[f"x vector, 2bit, {n} threads"] = Timing((1.5 / n,), 30e9)
        timings[f"x vector, 1.6bit, {n} threads"] = Timing((1.0 / n,), 24e9)
        timings |= {f"x {t} tokens, {n} threads": Timing((2.0,), t * 100e9 * n) for t in (4, 8, 128)}
    peaks = Peaks({1: 30.0, 2: 50.0}, {1: 500.0, 2: 1000.0})
    measured, missing = products.figures(timings, peaks)
    assert measured == pytest.approx(
        {
            "vector_of_read_1": 24 / 30,
            "vector_of_read_all": 48 / 50,
            "base3_over_2bit_1": 1.5,
            "base3_over_2bit_all": 1.5,
            "tokens4_of_peak_1": 0.4,
            "tokens8_of_peak_1": 0.8,
            "tokens128_of_peak_1": 12.8,
            "tokens4_of_peak_all": 0.4,
            "tokens8_of_peak_all": 0.8,
            "tokens128_of_peak_all": 12.8,
        }
    )
    assert missing == {}
    monkeypatch.setattr(products, "ISA", SimpleNamespace(look_up=False))
    measured, missing = products.figures(timings, peaks)
    assert set(missing) == {"base3_over_2bit_1", "base3_over_2bit_all"}
    assert not set(missing) & set(measured)


@pytest.fixture
def small(monkeypatch, model, small_limits):
    """Every section on the small model."""
    monkeypatch.setattr(suite, "find", lambda _name, _layout, _report: (model, 2))
    monkeypatch.setattr(suite, "Limits", lambda _threads: small_limits)
    monkeypatch.setattr(products, "SHAPES", {"70b": model.config})
    monkeypatch.setattr(suite, "LONG_CONTEXT", 64)
    monkeypatch.setattr(suite, "HEAD_SHAPE", (1000, 64))
    monkeypatch.setattr(compile_time, "_start", lambda _folder: 0.5)


def test_every_line_is_measured_or_says_why_not(small):
    steps = []
    found = suite.measure_kernels(2, (), 5, lambda done, total, what: steps.append((done, total, what)))
    keys = {line.target.key for line in found.lines if line.measured is not None}
    silent_keys = {line.target.key for line in found.lines if line.why_not == "not asked for" and line.measured is None}
    assert silent_keys == set()
    assert keys >= {target.key for target in TARGETS if not target.key.startswith("base3")}
    assert {what.partition(":")[0] for _, _, what in steps} >= {"limits", *suite.SECTIONS}
    value = found.to_json()
    assert [target["key"] for target in value["targets"]] == [target.key for target in TARGETS]
    assert {"goal", "measured", "met", "why_not"} <= set(value["targets"][0])
    assert any(choice["chosen"] for choice in value["dispatch"])
    assert value["isa"] == kernels.isa.ISA.name


def test_only_what_was_asked_for_is_measured(small):
    found = suite.measure_kernels(1, ("compile",), 5, silent)
    assert {line.target.key for line in found.lines if line.measured is not None} == {
        "cold_compile_s",
        "cached_start_s",
    }


def test_an_unknown_section_is_one_sentence():
    with pytest.raises(ConfigurationError, match="'speed' is none of products, decode"):
        suite.measure_kernels(1, ("products", "speed"), 5, silent)


def test_foreign_processes_end_with_the_block(monkeypatch):
    started = []

    def start(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    real = subprocess.Popen
    monkeypatch.setattr(contention.subprocess, "Popen", start)
    with contextlib.suppress(KeyboardInterrupt), contention.busy(2):
        assert [process.poll() for process in started] == [None, None]
        raise KeyboardInterrupt
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_a_start_happens_in_a_process_with_a_cache_of_its_own(monkeypatch, tmp_path):
    program = "import os; print(len(os.listdir(os.environ['TRIREME_CACHE_DIR'])) + 0.25)"
    real = subprocess.run
    monkeypatch.setattr(compile_time.subprocess, "run", lambda command, **how: real([command[0], "-c", program], **how))
    assert compile_time.cold_and_cached(5, silent) == (0.25, 0.25)
    monkeypatch.setattr(
        compile_time.subprocess,
        "run",
        lambda command, **how: real([command[0], "-c", "raise SystemExit('no room')"], **how),
    )
    with pytest.raises(ConfigurationError, match="no room"):
        compile_time.cold_and_cached(5, silent)


def test_what_is_started_runs_the_kernels(monkeypatch, capsys):
    monkeypatch.setattr(compile_time, "time", SimpleNamespace(perf_counter=iter([1.0, 3.5]).__next__))
    compile_time.main()
    assert float(capsys.readouterr().out) == 2.5
    assert interleaved({}, rounds=5) == {}
