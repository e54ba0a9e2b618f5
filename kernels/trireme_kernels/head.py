"""Where token ids come in and logits go out: the embedding and the output head, both in bfloat16."""

import numpy as np

from trireme_kernels.arrays import (
    ANY,
    F32,
    I32,
    U16,
    frozen,
    require_array,
    require_indices,
    require_output,
    work_range,
)
from trireme_kernels.half import float_of_bfloat
from trireme_kernels.jit import kernel
from trireme_kernels.summation import dot_bfloat

HEAD_ROWS = 32
"""Rows of the vocabulary in one work item of `head_logits`."""


def embed(table: U16, ids: I32, out: F32) -> None:
    """out[t] = table[ids[t]] widened.  table uint16[V, H] of bfloat16 bits, ids int32[T], out float32[T, H]."""
    require_array("table", table, np.uint16, (ANY, ANY))
    require_array("ids", ids, np.int32, (ANY,))
    require_indices("ids", ids, table.shape[0])
    require_output("out", out, np.float32, (ids.size, table.shape[1]))
    _embed(frozen(table), frozen(ids), out)


@kernel
def _embed(table: U16, ids: I32, out: F32) -> None:
    for t in range(ids.size):
        for i in range(table.shape[1]):
            out[t, i] = float_of_bfloat(table[ids[t], i])


def head_logits(x: F32, table: U16, out: F32, begin: int = 0, end: int | None = None) -> None:
    """out[t, v] = dot(x[t], table[v]) in float32, in the order of `summation.py`.

    x float32[T, H], table uint16[V, H] of bfloat16 bits, out float32[T, V].  begin, end: work items of 32 rows of the
    vocabulary (the last may be shorter), all by default; only their columns of `out` are written.
    """
    require_array("x", x, np.float32, (ANY, ANY))
    require_array("table", table, np.uint16, (ANY, x.shape[1]))
    vocabulary = table.shape[0]
    require_output("out", out, np.float32, (x.shape[0], vocabulary))
    begin, end = work_range(begin, end, -(-vocabulary // HEAD_ROWS))
    _logits(frozen(x), frozen(table), out, begin * HEAD_ROWS, min(end * HEAD_ROWS, vocabulary))


@kernel
def _logits(x: F32, table: U16, out: F32, begin: int, end: int) -> None:
    """A row of the table meets every token while it is in the cache."""
    width = table.shape[1]
    activations, weights = x.reshape(-1), table.reshape(-1)
    for v in range(begin, end):
        for t in range(x.shape[0]):
            out[t, v] = dot_bfloat(activations, t * width, weights, v * width, width)
