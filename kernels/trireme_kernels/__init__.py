"""Trireme's kernels: arrays in, arrays out, ternary linear algebra on CPUs.

Every function checks its arguments in Python (`KernelInputError` names the argument), then runs compiled code without
the GIL.  Results are a pure function of the arguments, bit for bit: no batch mate, thread or split changes them.
Compiled code is cached on disk (`cache.py`).  What each function computes is written a second time, plainly, in
`naive/`; `registry.py` pairs the two.
"""

from trireme_kernels.errors import KernelCacheError, KernelInputError, UnsupportedCpuError
from trireme_kernels.gates import silu_gate, squared_relu_gate
from trireme_kernels.head import HEAD_ROWS, embed, head_logits
from trireme_kernels.kv import PAGE_TOKENS, append_kv
from trireme_kernels.linear import ternary_linear
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.norm import add_rows, rms_norm
from trireme_kernels.packing import (
    BLOCK_COLS,
    SCALE_ROWS,
    TILE_ROWS,
    interleave_gate_up,
    pack_2bit,
    packed_bytes,
    unpack_2bit,
)
from trireme_kernels.paged_attention import attention
from trireme_kernels.philox import philox_uniform
from trireme_kernels.quantise import quantise_rows
from trireme_kernels.rotary import rope, rope_tables
from trireme_kernels.sampling import sample

__all__ = [
    "BLOCK_COLS",
    "HEAD_ROWS",
    "PAGE_TOKENS",
    "SCALE_ROWS",
    "TILE_ROWS",
    "KernelCacheError",
    "KernelInputError",
    "PackedMatrix",
    "UnsupportedCpuError",
    "add_rows",
    "append_kv",
    "attention",
    "embed",
    "head_logits",
    "interleave_gate_up",
    "pack_2bit",
    "packed_bytes",
    "philox_uniform",
    "quantise_rows",
    "rms_norm",
    "rope",
    "rope_tables",
    "sample",
    "silu_gate",
    "squared_relu_gate",
    "ternary_linear",
    "unpack_2bit",
]
