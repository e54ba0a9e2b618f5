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
from trireme_kernels.jit import inner, kernel
from trireme_kernels.simd import load_bf16, load_f32, prefetch, tree_sum, zeros_f32
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
    """Rows of the table meet every token while they are in the cache; four share what is read of a token."""
    width = table.shape[1]
    activations, weights = x.reshape(-1), table.reshape(-1)
    for v in range(begin, end, 4):
        for t in range(x.shape[0]):
            if v + 4 <= end and width % 16 == 0:
                a, b, c, d = _four(activations, t * width, weights, v * width, width)
                out[t, v], out[t, v + 1], out[t, v + 2], out[t, v + 3] = a, b, c, d
            else:
                for last in range(v, min(v + 4, end)):
                    out[t, last] = dot_bfloat(activations, t * width, weights, last * width, width)


@inner
def _four(x: F32, i: int, w: U16, j: int, n: int) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """`dot_bfloat` of four rows of n weights one after the other, n a multiple of 16."""
    a, b, c, d = zeros_f32(), zeros_f32(), zeros_f32(), zeros_f32()
    ahead = w.view(np.uint8)
    for k in range(0, n, 16):
        prefetch(ahead, 2 * (j + 4 * n) + 8 * k)
        prefetch(ahead, 2 * (j + 4 * n) + 8 * k + 64)
        y = load_f32(x, i + k)
        a = a + y * load_bf16(w, j + k)
        b = b + y * load_bf16(w, j + n + k)
        c = c + y * load_bf16(w, j + 2 * n + k)
        d = d + y * load_bf16(w, j + 3 * n + k)
    return tree_sum(a), tree_sum(b), tree_sum(c), tree_sum(d)
