"""Arguments for every kernel, in shapes that are likely to break one: the tests of `registry.py` run on them.

A case is a dict of keyword arguments.  Output arrays are filled with a value that no kernel writes, so that a missing
or a stray write shows.

    common.py        random arrays                       packed.py     layouts
    rows.py          row by row: quantiser to gates      attention.py  rotary embedding, pages, attention
    output_heads.py  embedding and output heads          tokens.py     draws and sampling
    layers.py        whole layers
"""

from trireme_kernels.cases.attention import append, attend, cached_rows, filled_pages, rotate, tables
from trireme_kernels.cases.common import UNWRITTEN, Case, Cases, Random, bfloats, blank, floats, matrix
from trireme_kernels.cases.layers import RandomLayer, layer, layer_runs
from trireme_kernels.cases.output_heads import (
    first_passes,
    head_rows,
    heads,
    int8_logits,
    largest,
    logits,
    lookup,
    rescores,
    thresholds,
)
from trireme_kernels.cases.packed import interleave, isas, layouts, packing, relayouts, sizes, unpacking
from trireme_kernels.cases.rows import gate, linear, norm, norm_quantise, quantise, residual
from trireme_kernels.cases.tokens import SETTINGS, draw, sampling
from trireme_kernels.packing import LAYOUTS

__all__ = [
    "LAYOUTS",
    "SETTINGS",
    "UNWRITTEN",
    "Case",
    "Cases",
    "Random",
    "RandomLayer",
    "append",
    "attend",
    "bfloats",
    "blank",
    "cached_rows",
    "draw",
    "filled_pages",
    "first_passes",
    "floats",
    "gate",
    "head_rows",
    "heads",
    "int8_logits",
    "interleave",
    "isas",
    "largest",
    "layer",
    "layer_runs",
    "layouts",
    "linear",
    "logits",
    "lookup",
    "matrix",
    "norm",
    "norm_quantise",
    "packing",
    "quantise",
    "relayouts",
    "rescores",
    "residual",
    "rotate",
    "sampling",
    "sizes",
    "tables",
    "thresholds",
    "unpacking",
]
