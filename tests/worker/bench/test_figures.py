"""Figures follow from times and bytes, and say the same thing in every field."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from trireme_worker.bench import decode, prefill
from trireme_worker.bench.interleave import Timing
from trireme_worker.bench.limits import Peaks
from trireme_worker.bench.traffic import StepBytes

PEAKS = Peaks({1: 40.0, 2: 50.0}, {1: 500.0, 2: 1000.0})
SIZES = StepBytes(layer=80_000_000, kv=20_000_000, head=300_000_000, rows=1000)


def made(config, layout):
    return SimpleNamespace(config=config, layout=layout, head_kind="int8")


def times(layers, head):
    return {"layers": Timing((9.0, layers, 0.0)), "head": Timing((0.0, head, 9.0))}


def test_decode_of_a_whole_model(model):
    config = replace(model.config, layers=10)
    case = decode.Case(threads=2, layers=10, context=300, batch=4, rounds=3, kv="int8")
    found = decode.decode_result(made(config, "2bit"), case, times(0.03, 0.01), PEAKS, SIZES, 0.25)
    assert found.tokens_per_s == pytest.approx(100.0)
    assert found.bytes_per_token == pytest.approx(1_300_001_000 / 4)
    assert found.read_gb_s == 50.0
    assert found.read_gb_s_1 == 40.0
    assert found.of_read == pytest.approx(1.300001 / 0.04 / 50.0)
    assert found.layers_of_read == pytest.approx(1.0 / 0.03 / 50.0)
    assert (found.step_ms, found.layers_ms, found.head_ms) == pytest.approx((40.0, 30.0, 10.0))
    assert found.of_vnni_peak == pytest.approx(config.ternary_parameters * 4 / 0.04 / 1e12)
    assert (found.head, found.kv) == ("int8", "int8")
    assert (found.threads, found.layout, found.batch, found.context, found.other_cpus) == (2, "2bit", 4, 300, 0.25)


def test_layers_that_were_not_timed_are_in_proportion(model):
    config = replace(model.config, layers=80)
    case = decode.Case(threads=1, layers=4)
    found = decode.decode_result(made(config, "1.6bit"), case, times(0.01, 0.05), PEAKS, SIZES, 0.0)
    assert found.step_ms == pytest.approx(20 * 10.0 + 50.0)
    assert found.bytes_per_token == 80 * 100_000_000 + 300_001_000
    assert found.layers_of_read == pytest.approx(4 * 0.1 / 0.01 / 40.0)
    assert (found.layers, found.layers_timed) == (80, 4)


def test_prefill(model):
    config = replace(model.config, layers=40)
    case = prefill.Case(threads=2, layers=20, tokens=500)
    found = prefill.prefill_result(made(config, "2bit"), case, times(0.2, 0.1), PEAKS, 0.0)
    assert found.tokens_per_s == pytest.approx(1000.0)
    assert found.prefill_ms == pytest.approx(500.0)
    assert found.gmac_s == pytest.approx(config.ternary_parameters * 1000 / 1e9)
    assert found.of_vnni_peak == pytest.approx(found.gmac_s / 1000.0)
    assert (found.vnni_peak_gmac_s, found.read_gb_s) == (1000.0, 50.0)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_measured_decode_is_consistent(model, small_limits, batch):
    case = decode.Case(threads=2, layers=2, context=20, batch=batch, rounds=5)
    found = decode.measure_decode(model, case, limits=small_limits)
    assert found.of_read == pytest.approx(found.bytes_per_token * found.tokens_per_s / 1e9 / found.read_gb_s)
    assert found.step_ms == pytest.approx(found.layers_ms + found.head_ms)
    assert found.tokens_per_s == pytest.approx(batch * 1000 / found.step_ms)
    assert (found.model, found.layout, found.threads, found.batch) == ("tiny", model.layout, 2, batch)
    wanted = {"tokens_per_s", "bytes_per_token", "read_gb_s", "of_read", "threads", "layout", "isa"}
    assert wanted <= set(asdict(found))


def test_a_measured_prefill_is_consistent(model, small_limits):
    found = prefill.measure_prefill(model, prefill.Case(threads=1, layers=2, tokens=30, rounds=5), limits=small_limits)
    assert found.tokens_per_s == pytest.approx(30_000 / found.prefill_ms)
    assert found.gmac_s == pytest.approx(model.config.ternary_parameters * found.tokens_per_s / 1e9)
    assert found.of_vnni_peak == pytest.approx(found.gmac_s / found.vnni_peak_gmac_s)
    assert {"tokens_per_s", "gmac_s", "of_vnni_peak"} <= set(asdict(found))


def test_the_times_are_those_of_the_clock(model, small_limits, clock, monkeypatch):
    """Layers that take 3 s and a head that takes 1 s, by a clock of our own."""
    monkeypatch.setattr(decode.Engine, "run_layers", lambda _self: clock.passes(3.0))
    monkeypatch.setattr(decode.Engine, "run_head", lambda _self: clock.passes(1.0))
    for name in ("_read", "_dot"):
        monkeypatch.setattr(type(small_limits), name, lambda _self, _threads: clock.passes(2.0))
    case = decode.Case(threads=1, layers=2, rounds=5)
    found = decode.measure_decode(model, case, limits=small_limits, watch=clock.watch)
    assert (found.tokens_per_s, found.layers_ms, found.head_ms) == (0.25, 3000.0, 1000.0)
    assert found.read_gb_s == 65536 / 2.0 / 1e9
