"""Cases of whole layers, and random ones."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trireme_kernels.arrays import F32
from trireme_kernels.cases.attention import cached_rows, filled_pages
from trireme_kernels.cases.common import Cases, Random, floats, matrix
from trireme_kernels.gates import ACTIVATIONS
from trireme_kernels.kv_format import KV_DTYPES, KvFormat
from trireme_kernels.layer_shape import LayerShape
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.rotary import rope_tables


@dataclass(frozen=True, eq=False, slots=True)
class RandomLayer:
    """Weights of a layer, as `layer_program.Layer` wants them."""

    attention_norm: F32
    attention_sub_norm: F32 | None
    ffn_norm: F32
    ffn_sub_norm: F32 | None
    qkv: PackedMatrix
    output: PackedMatrix
    gate_up: PackedMatrix
    down: PackedMatrix


def layer(rng: Random, shape: LayerShape, layout: str = "2bit", *, sub_norms: bool = True) -> RandomLayer:
    """A random layer."""
    matrices = {name: matrix(rng, *sizes, layout) for name, sizes in shape.matrices().items()}
    gains = {name: floats(rng, width) for name, width in shape.norms().items()}
    fields: dict[str, Any] = matrices | {n: g if sub_norms or "sub" not in n else None for n, g in gains.items()}
    return RandomLayer(**fields)


def layer_runs(rng: Random) -> Cases:
    """Both layouts and activations, with and without sub-norms, one row, several sequences, a prefill, threads."""
    relu2, silu = LayerShape(48, 80, 4, 2, 16, 1e-5, "relu2"), LayerShape(70, 32, 3, 3, 6, 1e-6, "silu")
    used = {relu2.activation, silu.activation}
    runs: tuple[tuple[LayerShape, str, bool, list[int], int], ...] = (
        (relu2, "2bit", True, [1], 1),
        (relu2, "1.6bit", True, [40, 3, 16], 1),
        (silu, "2bit", False, [33], 1),
        (silu, "1.6bit", False, [20, 5, 17, 1, 2, 3, 4, 5, 6, 7, 8], 3),
    )
    others = (name for name in ACTIVATIONS if name not in used)
    runs += tuple((replace(relu2, activation=name), "2bit", True, [3, 9], 1) for name in others)
    for (shape, layout, sub_norms, lengths, threads), dtype in itertools.product(runs, KV_DTYPES):
        kv = KvFormat(shape.kv_heads, shape.head_dim, dtype)
        rows = cached_rows(rng, lengths, kv)
        first = rows.pop("pages")
        cos, sin = rope_tables(64, shape.head_dim, 10000.0)
        yield {
            "shape": shape,
            "layers": [layer(rng, shape, layout, sub_norms=sub_norms) for _ in range(2)],
            "cos": cos,
            "sin": sin,
            "kv": kv,
            "pages": np.stack([first, filled_pages(rng, kv, len(first))]),
            "hidden": floats(rng, len(lengths), shape.hidden_size),
            "threads": threads,
            **rows,
        }
