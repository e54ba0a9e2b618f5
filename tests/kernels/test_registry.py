"""Every kernel equals its twin: the tests are generated from the registry."""

import copy
import dataclasses
import inspect

import numpy as np
import pytest

import trireme_kernels
from trireme_kernels.cases import UNWRITTEN, Case
from trireme_kernels.head_weights import HeadWeights
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.registry import REGISTRY, Row


def run(function, case: Case) -> tuple:
    """The result, and every array argument as it is afterwards."""
    arguments = {name: copy.deepcopy(a) if isinstance(a, np.ndarray) else a for name, a in case.items()}
    with np.errstate(invalid="ignore", over="ignore"):
        result = function(**arguments)
    return result, {name: a for name, a in arguments.items() if isinstance(a, np.ndarray)}


def same(fast, twin, tolerance: float) -> bool:  # noqa: PLR0911  # one for each kind of value
    """Equal type, dtype, shape and bits (any NaN equals any NaN), or values within a tolerance."""
    if isinstance(twin, (PackedMatrix, HeadWeights)):
        return all(same(getattr(fast, f.name), getattr(twin, f.name), tolerance) for f in dataclasses.fields(twin))
    if isinstance(twin, tuple):
        return len(fast) == len(twin) and all(same(a, b, tolerance) for a, b in zip(fast, twin, strict=True))
    if not isinstance(twin, np.ndarray):
        return type(fast) is type(twin) and fast == twin
    if fast.dtype != twin.dtype or fast.shape != twin.shape:
        return False
    if tolerance:
        return bool((np.abs(fast - twin) <= tolerance).all())
    if fast.dtype.kind != "f":
        return bool((fast == twin).all())
    return bool(((fast.view(np.uint32) == twin.view(np.uint32)) | np.isnan(fast) & np.isnan(twin)).all())


def public_functions() -> set[str]:
    return {name for name in trireme_kernels.__all__ if inspect.isfunction(getattr(trireme_kernels, name))}


def test_every_public_kernel_is_registered() -> None:
    assert {row.name for row in REGISTRY} == public_functions()


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
def test_rows_name_the_public_function(row: Row) -> None:
    assert getattr(trireme_kernels, row.name) is row.fast
    assert list(inspect.signature(row.fast).parameters) == list(inspect.signature(row.twin).parameters)


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
def test_kernel_equals_its_twin(row: Row) -> None:
    for case in row.cases(np.random.default_rng(7)):
        result, arrays = run(row.fast, case)
        wanted, wanted_arrays = run(row.twin, case)
        assert same(result, wanted, row.tolerance), (result, wanted)
        for name, array in arrays.items():
            assert same(array, wanted_arrays[name], row.tolerance), (name, array, wanted_arrays[name])


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
def test_cases_are_not_trivial(row: Row) -> None:
    """A twin that writes nothing, or always the same, would make equality worthless."""
    outputs = set()
    for case in row.cases(np.random.default_rng(7)):
        result, arrays = run(row.twin, case)
        outputs.add(repr(result) + "".join(name + str(a) for name, a in arrays.items()))
        if not {"begin", "part"} & case.keys() and "out" in arrays:
            assert not (arrays["out"] == UNWRITTEN).any()
    assert len(outputs) > 1
