"""Every kernel that serving reaches, compiled before somebody waits for it.

`kernel_groups` is the one list of what to compile: each group runs its kernels on tiny inputs through the public
functions, so the compiled signatures are those of the server.  `compile_kernels` runs them, once for a machine: of
several processes that start together the first compiles, the others wait and load.  Knows no packs and no requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

import trireme_kernels as kernels
from trireme_kernels.arrays import F32, U16, round_up
from trireme_kernels.compile_once import CompileOnce
from trireme_kernels.jit import counts
from trireme_kernels.linear_tiles import GROUP
from trireme_kernels.packing import LAYOUTS
from trireme_worker.peaks import OUT, STRIPE, read_lines

HEADS = ("bf16", *kernels.HEAD_KINDS)
"""Kinds of output heads."""
_SHAPE = kernels.LayerShape(32, 32, 2, 1, 16, 1e-5, "relu2")
_VOCABULARY = 40
_SECONDS = "15 to 30"

Say = Callable[[str], None]
"""A line for a person or a log."""
Report = Callable[[int, int, str], None]
"""How many are done, of how many, and what comes now."""


def _silent(*_: object) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Group:
    """Kernels that are compiled together.  `run` calls each of them; `name` is unique and says what they are for."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Warmth:
    """What `compile_kernels` did: the cache folder, seconds, kernels that were compiled and that were found in it."""

    folder: str
    seconds: float
    compiled: int
    cached: int


def kernel_groups(kv_dtypes: Sequence[str] = kernels.KV_DTYPES, heads: Sequence[str] = HEADS) -> tuple[Group, ...]:
    """What serving reaches with these types of keys and values and these heads; by default everything."""
    return (
        Group("embedding and norm", _embed),
        Group("layouts of weights", _relayout),
        *(Group(f"layers, keys and values in {name}", partial(_layers, name)) for name in kv_dtypes),
        *(Group(f"head in {kind}", partial(_head, kind)) for kind in heads),
        Group("sampling", _sample),
        Group("the memory's read rate", _read),
    )


def _read() -> None:
    read_lines(np.zeros(STRIPE, np.int32), 0, STRIPE, np.zeros(OUT, np.int32))


def compile_kernels(
    groups: Sequence[Group], *, once: CompileOnce | None = None, say: Say = _silent, report: Report = _silent
) -> Warmth:
    """Runs the groups, so that none of their kernels is compiled in this process again.

    `say` gets one line where something is to be compiled or waited for.  Raises `KernelCacheError`.
    """
    once, began, before = once or CompileOnce(), time.perf_counter(), counts()
    ran: list[Group] = []

    def run(group: Group) -> None:
        report(len(ran), len(groups), group.name)
        group.run()
        ran.append(group)

    if once.missing([group.name for group in groups]):
        with once.alone(lambda: say("Waiting for another process of this machine, which compiles the kernels")):
            _run_missing(groups, once, say, run)
    for group in groups:
        if group not in ran:
            run(group)
    report(len(groups), len(groups), "done")
    compiled, cached = (now - then for now, then in zip(counts(), before, strict=True))
    return Warmth(str(once.folder), time.perf_counter() - began, compiled, cached)


def _run_missing(groups: Sequence[Group], once: CompileOnce, say: Say, run: Callable[[Group], None]) -> None:
    """What is still missing now that nobody else compiles."""
    missing = once.missing([group.name for group in groups])
    if missing:
        say(f"Compiling the kernels, once for this machine, {_SECONDS} s")
    for group in groups:
        if group.name in missing:
            try:
                run(group)
                once.done(group.name)
            except OSError as e:  # such as a full disk, of which Numba does not say where it is
                raise kernels.KernelCacheError(f"cannot write to {once.folder}: {e.strerror or e}") from e


def _embed() -> None:
    hidden = np.empty((1, _SHAPE.hidden_size), np.float32)
    kernels.embed(_table(), np.zeros(1, np.int32), hidden)
    kernels.rms_norm(hidden, _ones(_SHAPE.hidden_size), _SHAPE.norm_eps, np.empty_like(hidden))


def _relayout() -> None:
    """From each layout to the other."""
    for matrix, layout in zip(map(_matrix, LAYOUTS), reversed(LAYOUTS), strict=True):
        kernels.relayout(matrix, layout)


def _layers(kv_dtype: str) -> None:
    """Each layout with each size of a group of tokens, and with more than one group."""
    kv = kernels.KvFormat(_SHAPE.kv_heads, _SHAPE.head_dim, kv_dtype)
    cos, sin = kernels.rope_tables(kernels.PAGE_TOKENS, _SHAPE.head_dim, 10000.0)
    for layout in LAYOUTS:
        pages = kv.empty(1)
        pages[:] = 0
        program = kernels.LayerProgram(_SHAPE, [_Layer(layout)], cos, sin, kv, [pages])
        for tokens in range(1, GROUP + 2):
            hidden, rows = np.zeros((tokens, _SHAPE.hidden_size), np.float32), np.arange(tokens, dtype=np.int32)
            program.run(hidden, np.zeros((1, 1), np.int32), np.zeros(tokens, np.int32), rows)
        program.close()


def _head(kind: str) -> None:
    hidden, logits = np.zeros((1, _SHAPE.hidden_size), np.float32), np.empty((1, _VOCABULARY), np.float32)
    if kind == HEADS[0]:
        kernels.head_logits(hidden, _table(), logits)
        return
    head = kernels.quantise_head(_table(), kind)
    rows = kernels.quantise_for_head(hidden, head)
    kernels.int8_head_logits(rows, head, logits)
    if head.codes is not None:
        kernels.largest_logits(rows, head, 1, logits)


def _sample() -> None:
    """Greedy, plain, top-k, top-p and both."""
    for temperature, top_k, top_p in ((0.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.9), (1.0, 3, 0.9)):
        kernels.sample(np.arange(_VOCABULARY, dtype=np.float32), temperature, top_k, top_p, 0, 0)


class _Layer:
    """Weights of a layer of `_SHAPE`: all -1."""

    def __init__(self, layout: str) -> None:
        gains = {name: _ones(width) for name, width in _SHAPE.norms().items()}
        self.attention_norm, self.ffn_norm = gains["attention_norm"], gains["ffn_norm"]
        self.attention_sub_norm, self.ffn_sub_norm = gains["attention_sub_norm"], gains["ffn_sub_norm"]
        shapes = _SHAPE.matrices().values()
        self.qkv, self.output, self.gate_up, self.down = (_matrix(layout, *shape) for shape in shapes)


def _matrix(layout: str, rows: int = 32, cols: int = 32) -> kernels.PackedMatrix:
    data = np.zeros(kernels.packed_bytes(rows, cols, layout), np.uint8)
    scales = _ones(round_up(rows, kernels.TILE_ROWS) // kernels.SCALE_ROWS)
    return kernels.PackedMatrix(data, scales, rows, cols, layout)


def _ones(size: int) -> F32:
    return np.ones(size, np.float32)


def _table() -> U16:
    return np.zeros((_VOCABULARY, _SHAPE.hidden_size), np.uint16)
