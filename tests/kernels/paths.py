"""Runs the kernels that are emitted differently on different CPUs against their twins; prints the path that was taken.

A program of its own, because a process generates code for one CPU: `test_paths.py` starts it under several.
"""

import copy
import sys

import numpy as np

import trireme_kernels as k
from trireme_kernels import registry
from trireme_kernels.jit import kernel
from trireme_kernels.simd import dot, load_i8, load_i32, load_u8, store_i32

DEPENDENT = (
    "attention",
    "head_logits",
    "append_kv",
    "first_pass",
    "int8_head_logits",
    "largest_logits",
    "rms_norm_quantise",
    "gated_product",
    "ternary_linear",
    "run_layers",
)


def equals_its_twin(row: registry.Row) -> None:
    for case in row.cases(np.random.default_rng(11)):
        arguments, wanted = copy.deepcopy(case), copy.deepcopy(case)
        with np.errstate(invalid="ignore", over="ignore"):
            row.fast(**arguments)
            row.twin(**wanted)
        for name, array in arguments.items():
            if isinstance(array, np.ndarray):
                assert np.array_equal(array, wanted[name], equal_nan=array.dtype.kind == "f"), (row.name, name)


@kernel
def products(w: np.ndarray, x: np.ndarray, sums: np.ndarray) -> None:
    for i in range(0, w.size, 64):
        store_i32(sums, i // 4, dot(load_i32(sums, i // 4), load_u8(w, i), load_i8(x, i)))


def dot_is_exact() -> None:
    """With the extremes of both sides in every place."""
    rng = np.random.default_rng(0)
    top = 255 if k.ISA.any_bytes else 127
    w = rng.choice(np.array([0, 1, 2, top - 1, top], np.uint8), 6400)
    x = rng.choice(np.array([-128, -127, -1, 0, 1, 127], np.int8), 6400)
    w[:64], x[:64], x[64:128], w[64:128] = top, -128, 127, top
    sums = rng.integers(-(2**31), 2**31, 1600, dtype=np.int32)
    wanted = sums + (w.astype(np.int32) * x).reshape(-1, 4).sum(axis=1, dtype=np.int32)
    products(w, x, sums)
    assert (sums == wanted).all()


if __name__ == "__main__":
    dot_is_exact()
    for each in registry.REGISTRY:
        if each.name in DEPENDENT:
            equals_its_twin(each)
    sys.stdout.write(k.ISA.name)
