"""Quantiser, norm, gates and exponential: values from outside the project, and faults that must show."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import trireme_kernels as k
from trireme_kernels import cases
from trireme_kernels.exponential import exp_nonpositive
from trireme_kernels.gates import ACTIVATIONS
from trireme_kernels.naive import summation as naive

finite = st.floats(-(2.0**100), 2.0**100, width=32)


def quantise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.atleast_2d(np.asarray(x, np.float32))
    q = np.full((len(x), -(-x.shape[1] // 16) * 16), 99, np.int8)
    scale, total = np.empty(len(x), np.float32), np.empty(len(x), np.int32)
    k.quantise_rows(x, q, scale, total)
    return q, scale, total


def test_the_reciprocal_comes_first() -> None:
    """With 127 / absmax instead of (1 / absmax) * 127 at least one of these values lands on another level."""
    f = np.float32
    found = 0
    for seed in range(200):
        x = cases.floats(np.random.default_rng(seed), 1, 64)
        top = np.abs(x).max()
        right, wrong = np.rint(x * (f(1) / top * f(127))), np.rint(x * (f(127) / top))
        levels, scale, _ = quantise(x)
        assert (levels == right).all()
        assert scale[0] == f(1) / (f(1) / top * f(127))
        found += bool((right != wrong).any()) or f(1) / top * f(127) != f(127) / top
    assert found


def test_ties_go_to_the_even_level() -> None:
    q, scale, total = quantise([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5])
    assert q[0].tolist() == [127, 0, 2, 2, 0, -2, -2, 4] + 8 * [0]
    assert (scale[0], total[0]) == (1, 131)


def test_small_rows_are_measured_against_1e_5() -> None:
    q, scale, _ = quantise([1e-6, -5e-6])
    assert q[0, :2].tolist() == [13, -64]
    assert math.isclose(scale[0], 1e-5 / 127, rel_tol=1e-6)


@settings(deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=finite))
def test_quantised_rows_are_close_and_use_the_whole_range(x: np.ndarray) -> None:
    q, scale, total = quantise(x)
    back = q[:, : x.shape[1]].astype(np.float64) * scale[:, None].astype(np.float64)
    top = np.maximum(np.abs(x).max(axis=1), 1e-5).astype(np.float64)
    assert (np.abs(back - x).max(axis=1) <= top / 254 * (1 + 1e-4)).all()
    assert (total == q.sum(axis=1)).all()
    assert (q[:, x.shape[1] :] == 0).all()


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_a_fault_reaches_the_output_of_its_row_only(fault: float) -> None:
    rng = np.random.default_rng(0)
    w, x = cases.matrix(rng, 32, 32), cases.floats(rng, 3, 32)
    x[1, 7] = fault
    q, scale, total = quantise(x)
    out = cases.blank(3, 32)
    k.ternary_linear(w, q, scale, total, out)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()


def test_norm_against_float64() -> None:
    x, gain = cases.floats(np.random.default_rng(0), 4, 333, spread=5), cases.floats(np.random.default_rng(1), 333)
    out = cases.blank(4, 333)
    k.rms_norm(x, gain, 1e-5, out)
    wide = x.astype(np.float64)
    wanted = wide / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + 1e-5) * gain
    assert np.abs(out / wanted - 1).max() < 5e-7


def test_norm_in_place_and_row_by_row() -> None:
    x, gain = cases.floats(np.random.default_rng(0), 5, 50), cases.floats(np.random.default_rng(1), 50)
    out = cases.blank(5, 50)
    k.rms_norm(x, gain, 1e-6, out)
    single = cases.blank(1, 50)
    k.rms_norm(x[3:4], gain, 1e-6, single)
    assert (single[0] == out[3]).all()
    k.rms_norm(x, gain, 1e-6, x)
    assert (x == out).all()


def test_norm_of_zeros_is_zero() -> None:
    out = cases.blank(1, 16)
    k.rms_norm(np.zeros((1, 16), np.float32), np.ones(16, np.float32), 1e-5, out)
    assert (out == 0).all()


def gated(activation: str, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    merged = np.ascontiguousarray(k.interleave_gate_up(gate, up)[None])
    out = cases.blank(1, merged.size // 2)
    k.gated_product(merged, activation, out)
    return out[0, : gate.size]


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40))
def test_gates_against_float64(values: list[float]) -> None:
    gate = np.array(values, np.float32)
    up = np.linspace(-2, 3, gate.size, dtype=np.float32)
    wide = gate.astype(np.float64)
    assert np.allclose(gated("relu2", gate, up), np.maximum(wide, 0) ** 2 * up, rtol=3e-7, atol=1e-30)
    assert np.allclose(gated("silu", gate, up), wide / (1 + np.exp(-wide)) * up, rtol=8e-7, atol=1e-35)


def test_gates_keep_nan() -> None:
    gate, up = np.array([np.nan, 1], np.float32), np.ones(2, np.float32)
    for activation in ACTIVATIONS:
        assert np.isnan(gated(activation, gate, up)).tolist() == [True, False]


def test_exponential_is_accurate_everywhere() -> None:
    """On the twin, which the next test holds to the compiled function."""
    x = np.concatenate([np.linspace(-87, 0, 400_001), -np.logspace(-9, 1, 100_001)]).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(naive.exp_nonpositive(x) / exact - 1).max() < 8.3e-8


@pytest.mark.parametrize("x", [0.0, -0.0, -1e-45, -0.5, -17.25, -86.99, -87.0, -87.01, -1e30, -np.inf, np.nan])
def test_exponential_of_special_values(x: float) -> None:
    f = np.float32
    compiled, twin = f(exp_nonpositive(f(x))), naive.exp_nonpositive(np.array([x], f))[0]
    assert compiled == twin or (np.isnan(compiled) and np.isnan(twin) and np.isnan(x))
    assert x >= -87 or np.isnan(x) or compiled == 0
    assert x != 0 or compiled == 1


def test_residual_ignores_padding_of_y() -> None:
    x, y = np.ones((2, 5), np.float32), np.arange(16, dtype=np.float32).reshape(2, 8)
    k.add_rows(x, y)
    assert x.tolist() == [[1, 2, 3, 4, 5], [9, 10, 11, 12, 13]]
