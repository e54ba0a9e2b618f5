"""Trireme's kernels: arrays in, arrays out, ternary linear algebra on CPUs.

Every function checks its arguments in Python (`KernelInputError` names the argument), then runs compiled code without
the GIL.  Results are a pure function of the arguments, bit for bit: no batch mate, thread or split changes them.
Compiled code is cached on disk (`cache.py`).  What each function computes is written a second time, plainly, in
`naive/`; `registry.py` pairs the two.
"""

from trireme_kernels.errors import KernelCacheError, KernelInputError, UnsupportedCpuError
from trireme_kernels.gates import gated_product
from trireme_kernels.head import HEAD_ROWS, embed, head_logits
from trireme_kernels.head_first_pass import first_pass, largest_logits, rescore, threshold
from trireme_kernels.head_int8 import Activations, int8_head_logits, quantise_for_head
from trireme_kernels.head_weights import HEAD_KINDS, HeadWeights, quantise_head
from trireme_kernels.isa import ISA, Isa
from trireme_kernels.kv import append_kv
from trireme_kernels.kv_format import KV_DTYPES, PAGE_TOKENS, KvFormat
from trireme_kernels.layer_program import LayerProgram, run_layers
from trireme_kernels.layer_shape import LayerShape
from trireme_kernels.linear import ternary_linear
from trireme_kernels.matrix import PackedMatrix, relayout
from trireme_kernels.norm import add_rows, rms_norm
from trireme_kernels.packing import (
    SCALE_ROWS,
    TILE_ROWS,
    block_cols,
    interleave_gate_up,
    pack,
    packed_bytes,
    preferred_layout,
    unpack,
)
from trireme_kernels.paged_attention import attention
from trireme_kernels.philox import philox_uniform
from trireme_kernels.quantise import quantise_rows, rms_norm_quantise
from trireme_kernels.rotary import rope, rope_tables
from trireme_kernels.sampling import sample

__all__ = [
    "HEAD_KINDS",
    "HEAD_ROWS",
    "ISA",
    "KV_DTYPES",
    "PAGE_TOKENS",
    "SCALE_ROWS",
    "TILE_ROWS",
    "Activations",
    "HeadWeights",
    "Isa",
    "KernelCacheError",
    "KernelInputError",
    "KvFormat",
    "LayerProgram",
    "LayerShape",
    "PackedMatrix",
    "UnsupportedCpuError",
    "add_rows",
    "append_kv",
    "attention",
    "block_cols",
    "embed",
    "first_pass",
    "gated_product",
    "head_logits",
    "int8_head_logits",
    "interleave_gate_up",
    "largest_logits",
    "pack",
    "packed_bytes",
    "philox_uniform",
    "preferred_layout",
    "quantise_for_head",
    "quantise_head",
    "quantise_rows",
    "relayout",
    "rescore",
    "rms_norm",
    "rms_norm_quantise",
    "rope",
    "rope_tables",
    "run_layers",
    "sample",
    "ternary_linear",
    "threshold",
    "unpack",
]
