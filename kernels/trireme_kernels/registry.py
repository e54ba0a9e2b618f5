"""One row for each public kernel: the kernel, its plain twin, and the arguments on which both must agree.

`tests/kernels` runs every row and fails when a public function has none.  A tolerance of 0 means equality bit for bit,
which is what holds wherever the twin follows the same order of operations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trireme_kernels import (
    cases,
    gates,
    head,
    head_first_pass,
    head_int8,
    head_weights,
    kv,
    layer_program,
    linear,
    matrix,
    norm,
    packing,
    paged_attention,
    philox,
    quantise,
    rotary,
    sampling,
)
from trireme_kernels.naive import attention as naive_attention
from trireme_kernels.naive import gates as naive_gates
from trireme_kernels.naive import layer_program as naive_program
from trireme_kernels.naive import layers as naive_layers
from trireme_kernels.naive import packing as naive_packing
from trireme_kernels.naive import tokens as naive_tokens


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel and what it must equal.

    name       public name in `trireme_kernels`
    fast       the kernel
    twin       the same in NumPy: same arguments, same results
    cases      generator of keyword arguments from a random generator
    tolerance  greatest absolute difference of any array that is written or returned
    """

    name: str
    fast: Callable[..., Any]
    twin: Callable[..., Any]
    cases: Callable[[cases.Random], cases.Cases]
    tolerance: float = 0.0


REGISTRY = (
    Row("add_rows", norm.add_rows, naive_layers.add_rows, cases.residual),
    Row("append_kv", kv.append_kv, naive_attention.append_kv, cases.append),
    Row("attention", paged_attention.attention, naive_attention.attention, cases.attend),
    Row("block_cols", packing.block_cols, naive_packing.block_cols, cases.layouts),
    Row("embed", head.embed, naive_tokens.embed, cases.lookup),
    Row("first_pass", head_first_pass.first_pass, naive_tokens.first_pass, cases.first_passes),
    Row("gated_product", gates.gated_product, naive_gates.gated_product, cases.gate),
    Row("head_logits", head.head_logits, naive_tokens.head_logits, cases.logits),
    Row("int8_head_logits", head_int8.int8_head_logits, naive_tokens.int8_head_logits, cases.int8_logits),
    Row("interleave_gate_up", packing.interleave_gate_up, naive_packing.interleave_gate_up, cases.interleave),
    Row("largest_logits", head_first_pass.largest_logits, naive_tokens.largest_logits, cases.largest),
    Row("pack", packing.pack, naive_packing.pack, cases.packing),
    Row("packed_bytes", packing.packed_bytes, naive_packing.packed_bytes, cases.sizes),
    Row("philox_uniform", philox.philox_uniform, naive_tokens.philox_uniform, cases.draw),
    Row("preferred_layout", packing.preferred_layout, naive_packing.preferred_layout, cases.isas),
    Row("quantise_for_head", head_int8.quantise_for_head, naive_tokens.quantise_for_head, cases.head_rows),
    Row("quantise_head", head_weights.quantise_head, naive_tokens.quantise_head, cases.heads),
    Row("quantise_rows", quantise.quantise_rows, naive_layers.quantise_rows, cases.quantise),
    Row("relayout", matrix.relayout, naive_packing.relayout, cases.relayouts),
    Row("rescore", head_first_pass.rescore, naive_tokens.rescore, cases.rescores),
    Row("rms_norm", norm.rms_norm, naive_layers.rms_norm, cases.norm),
    Row("rms_norm_quantise", quantise.rms_norm_quantise, naive_layers.rms_norm_quantise, cases.norm_quantise),
    Row("rope", rotary.rope, naive_attention.rope, cases.rotate),
    # NumPy's vectorised and scalar cosines may differ in the last bit of float64: one float32 unit at 1.
    Row("rope_tables", rotary.rope_tables, naive_attention.rope_tables, cases.tables, tolerance=6e-8),
    Row("run_layers", layer_program.run_layers, naive_program.run_layers, cases.layer_runs),
    Row("sample", sampling.sample, naive_tokens.sample, cases.sampling),
    Row("ternary_linear", linear.ternary_linear, naive_layers.ternary_linear, cases.linear),
    Row("threshold", head_first_pass.threshold, naive_tokens.threshold, cases.thresholds),
    Row("unpack", packing.unpack, naive_packing.unpack, cases.unpacking),
)
"""Every public kernel, by name."""
