"""A range of layers bound to its weights, its KV pages and its threads: `LayerProgram`.

Owns the threads, the memory between the steps, and every check: compiled code (`layer_steps.py`) gets addresses and
trusts them.  Knows nothing of files, sequences or the network.

    caller ---- run() ----> work(rank 0) returns                    one call for all layers and tokens
    helper threads          work(rank 1 ..): sleep, compute, sleep ...       they enter once and stay without the GIL
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trireme_kernels import layer_steps as steps
from trireme_kernels.arrays import (
    ANY,
    F32,
    I32,
    U8,
    frozen,
    require,
    require_array,
    require_indices,
    require_output,
    round_up,
)
from trireme_kernels.attention_scores import ROWS
from trireme_kernels.gates import number_of
from trireme_kernels.kv import check_prefixes, check_rows
from trireme_kernels.kv_format import KvFormat
from trireme_kernels.layer_shape import Layer, LayerShape
from trireme_kernels.linear_tiles import GATE
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.threads import PULSE, SYNC_WORDS
from trireme_kernels.threads.cpus import pin, pinned, thread_cpus

MAX_THREADS = 128


class LayerProgram:
    """Layers ready to run on `threads` threads, the calling one included.

    layers            weights of each layer, all in one layout; arrays may be read-only memory maps
    cos, sin          float32[context, head_dim / 2] of `rope_tables`
    kv                how keys and values are stored
    pages             for each layer uint8[P, KV, head_bytes], as in `append_kv`; written by `run`
    cpus              a CPU for each thread, to pin them to (the caller during `run`, which two threads on one CPU would
                      double); by default those of this process, when it has exactly `threads` of them (other
                      processes then have theirs), else none

    The arrays are used where they lie and must not be moved.  Helper threads sleep while there is no work.
    Raises `KernelInputError`.
    """

    def __init__(
        self,
        shape: LayerShape,
        layers: Sequence[Layer],
        cos: F32,
        sin: F32,
        kv: KvFormat,
        pages: Sequence[U8] | U8,
        *,
        threads: int = 1,
        cpus: Sequence[int] | None = None,
    ) -> None:
        require("threads", 1 <= threads <= MAX_THREADS, f"must lie in 1..{MAX_THREADS}")
        require("layers", len(layers) > 0, "must not be empty")
        require("pages", len(pages) == len(layers), "must have an array for each layer")
        sizes = (kv.kv_heads, kv.head_dim)
        require("kv", sizes == (shape.kv_heads, shape.head_dim), "must have the model's kv_heads and head_dim")
        require_array("cos", cos, np.float32, (ANY, shape.head_dim // 2))
        require_array("sin", sin, np.float32, cos.shape)
        self.shape, self.threads = shape, threads
        arrays = [_arrays(shape, layer, kv, own) for layer, own in zip(layers, pages, strict=True)]
        self._kept = arrays  # compiled code has no more than their addresses
        self._layers = np.array([_addresses(each) for each in arrays], np.int64)
        first = layers[0]
        for layer in layers:
            for name in shape.matrices():
                require(name, getattr(layer, name).layout == first.qkv.layout, "must have one layout in all layers")
        for own in pages:
            require("pages", own.shape == pages[0].shape, "must have one shape in all layers")
        self._pages = pages[0].shape[0]
        self._sizes = _sizes(shape, first, kv)
        self._widest = max(getattr(first, name).padded_cols for name in shape.matrices())
        self._cos, self._sin = frozen(cos), frozen(sin)
        self._kv = kv
        self._sync, self._command = np.zeros(SYNC_WORDS, np.int32), np.zeros(steps.COMMAND_FIELDS, np.int64)
        self._buffers: dict[int, npt.NDArray[np.uint8]] = {}
        self._running = threading.Lock()
        self._cpus = thread_cpus(threads) if cpus is None else list(cpus)
        require("cpus", len(self._cpus) in {0, threads}, "must name a CPU for each thread, or none")
        self._helpers = self._start()

    def run(self, hidden: F32, table: I32, rows_slot: I32, positions: I32) -> None:
        """Apply the layers to hidden float32[T, hidden_size] in place; keys and values of the rows join the pages.

        table       int32[S, max_pages], page ids of each slot
        rows_slot   int32[T], slot of each row
        positions   int32[T], position of each row; two rows never have the same slot and position

        Raises `KernelInputError`.
        """
        require_output("hidden", hidden, np.float32, (ANY, self.shape.hidden_size))
        check_rows(len(hidden), table, rows_slot, positions)
        require_indices("positions", positions, self._cos.shape[0])
        check_prefixes(self._pages, table, rows_slot, positions)
        places = rows_slot.astype(np.int64) * (1 << 32) + positions
        require("positions", len(np.unique(places)) == len(places), "must not name a place twice")
        with self._running:
            require("program", not self._command[steps.STOP], "is closed")
            if len(hidden):
                self._fill(hidden, table, rows_slot, positions)
                with pinned(self._cpus[:1]):
                    self._work(0)

    @property
    def pulse(self) -> int:
        """Changes several times a layer while `run` gets on; to be looked at from another thread."""
        return int(self._sync[PULSE])

    @property
    def attention_share(self) -> float:
        """How much of the last `run` was rope, cache and attention, as the calling thread saw it, 0 to 1; 0 where the
        CPU has no counter that a program may read.
        """
        whole = int(self._command[steps.ALL_CYCLES])
        return int(self._command[steps.ATTENTION_CYCLES]) / whole if whole > 0 else 0.0

    def close(self) -> None:
        """End the threads.  More than once is harmless."""
        with self._running:
            self._command[steps.STOP] = 1
            self._work(0)
        for helper in self._helpers:
            helper.join()

    def _work(self, rank: int) -> None:
        eps = np.float32(self.shape.norm_eps)
        fixed = (self._sizes, eps, self._layers, self._cos, self._sin, self._kv.like)
        steps.work(rank, self.threads, self._sync, self._command, *fixed)

    def _start(self) -> list[threading.Thread]:
        def help_with(rank: int) -> None:
            pin(self._cpus[rank : rank + 1])
            self._work(rank)

        helpers = [
            threading.Thread(target=help_with, args=(rank,), name=f"kernel-{rank}", daemon=True)
            for rank in range(1, self.threads)
        ]
        for helper in helpers:
            helper.start()
        return helpers

    def _fill(self, hidden: F32, table: I32, rows_slot: I32, positions: I32) -> None:
        c, tokens, shape = self._command, len(hidden), self.shape
        c[steps.TOKENS], c[steps.HIDDEN] = tokens, hidden.ctypes.data
        c[steps.SLOT], c[steps.POSITION] = rows_slot.ctypes.data, positions.ctypes.data
        c[steps.TABLE], c[steps.TABLE_COLS] = table.ctypes.data, table.shape[1]
        c[steps.LONGEST], c[steps.ROWS] = int(positions.max()) + 1, min(tokens, ROWS)
        qkv = round_up(shape.matrices()["qkv"][0], 32)
        floats = {steps.QKV_ROWS: qkv, steps.ATTENDED: shape.query_size, steps.GATED: shape.ffn_size}
        for field, width in (floats | {steps.SCALE: 1, steps.TOTAL: 1}).items():
            c[field] = self._buffer(field, tokens * width * 4)
        c[steps.Q] = self._buffer(steps.Q, tokens * self._widest)
        sizes = (tokens, int(c[steps.ROWS]), int(c[steps.LONGEST]), self._kv.width, self._widest)
        c[steps.SCRATCH_BYTES] = steps.scratch_bytes(*sizes)
        c[steps.SCRATCH] = self._buffer(steps.SCRATCH, self.threads * int(c[steps.SCRATCH_BYTES]))

    def _buffer(self, field: int, size: int) -> int:
        """Address of memory between steps, kept and grown; not touched here, so that its users' CPUs get its pages."""
        if field not in self._buffers or self._buffers[field].size < size + 64:
            self._buffers[field] = np.empty(size + 64, np.uint8)
        return round_up(self._buffers[field].ctypes.data, 64)


def _sizes(shape: LayerShape, layer: Layer, kv: KvFormat) -> npt.NDArray[np.int64]:
    action = GATE + number_of(shape.activation)
    numbers = [
        shape.hidden_size,
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        kv.width,
        kv.head_bytes,
        kv.compiled(kv.empty(0)).value_bytes,
        action,
    ]
    for name in shape.matrices():
        matrix: PackedMatrix = getattr(layer, name)
        numbers += [matrix.tiles, matrix.blocks, matrix.padded_cols]
    return np.array(numbers, np.int64)


def _arrays(shape: LayerShape, layer: Layer, kv: KvFormat, pages: U8) -> dict[int, npt.NDArray[Any]]:
    """The arrays of a layer by their columns in `layers` of `layer_steps.work`, all checked."""
    found: dict[int, npt.NDArray[Any]] = {}
    for name, width in shape.norms().items():
        gain: F32 | None = getattr(layer, name)
        if gain is not None:
            require_array(name, gain, np.float32, (width,))
            found[getattr(steps, name.upper())] = gain
    for name, (rows, cols) in shape.matrices().items():
        matrix: PackedMatrix = getattr(layer, name)
        require(name, (matrix.rows, matrix.cols) == (rows, cols), f"must have {rows} rows and {cols} columns")
        at = getattr(steps, name.upper())
        found |= {at: matrix.data, at + 1: matrix.scales}
    kv.check(pages, written=True)
    return found | {steps.PAGES: pages}


def _addresses(arrays: dict[int, npt.NDArray[Any]]) -> list[int]:
    return [arrays[field].ctypes.data if field in arrays else 0 for field in range(steps.LAYER_FIELDS)]


def run_layers(
    shape: LayerShape,
    layers: Sequence[Layer],
    cos: F32,
    sin: F32,
    kv: KvFormat,
    pages: U8,
    hidden: F32,
    table: I32,
    rows_slot: I32,
    positions: I32,
    threads: int = 1,
) -> None:
    """Run a `LayerProgram` once: pages uint8[L, P, KV, head_bytes], the rest as there."""
    require_output("pages", pages, np.uint8, (len(layers), ANY, kv.kv_heads, kv.head_bytes))
    program = LayerProgram(shape, layers, cos, sin, kv, pages, threads=threads)
    try:
        program.run(hidden, table, rows_slot, positions)
    finally:
        program.close()
