"""A range of layers for a micro-batch, as one compiled function for each thread: `work`.

    x = rms_norm(h);  q, k, v = linear(x);  rope(q, k);  h += linear(sub_norm(attention(q, K, V)))
    x = rms_norm(h);  h += linear(sub_norm(activation(gate(x)) * up(x)))

Threads split tiles of matrices in contiguous parts, rows to quantise in contiguous parts, (row, KV head) pairs to
rotate in turn, attention by its work (`attention_plan.py`), and meet at a barrier where one reads what another wrote.
A single row is quantised by every thread for itself, which is quicker than a barrier.  Who computes what changes no
bit.

Everything comes in as numbers and addresses, checked by `layer_program.py`: a matrix of a layer may be its own memory
map, and the threads that wait inside `work` cannot be handed Python objects.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from trireme_kernels.arrays import F32, I32, I64, round_up
from trireme_kernels.attention_plan import Plan, plan_blocks, plan_bytes
from trireme_kernels.attention_scores import Scratch, attention_bytes, attention_scratch
from trireme_kernels.attention_share import Queries, attend_share
from trireme_kernels.jit import inlined, inner, kernel
from trireme_kernels.kv import store_head
from trireme_kernels.kv_format import PAGE_TOKENS, Pages
from trireme_kernels.linear_tiles import ADD, GROUP, STORE, Quantised, Weights, group_place, linear_tiles, runtime
from trireme_kernels.packing import BLOCK_BYTES
from trireme_kernels.quantise import quantise_row
from trireme_kernels.rotary import rotate_head
from trireme_kernels.simd import bytes_at, floats_at, int8s_at, int32s_at, prefetch
from trireme_kernels.threads import COMMAND, advance, barrier, change, cycles, share, wait_while
from trireme_kernels.tile_sums import AHEAD

Numbers: TypeAlias = npt.NDArray[Any]

# Columns of `layers`, int64[L, LAYER_FIELDS]: addresses; 0 where a model has no such norm.
ATTENTION_NORM, ATTENTION_SUB_NORM, FFN_NORM, FFN_SUB_NORM = 0, 1, 2, 3
QKV, OUTPUT, GATE_UP, DOWN = 4, 6, 8, 10  # address of the weights, then of the scales
PAGES = 12
LAYER_FIELDS = 13

# Columns of `command`, int64[COMMAND_FIELDS]: what to compute now.
STOP, TOKENS, HIDDEN, SLOT, POSITION, TABLE, TABLE_COLS, LONGEST, ROWS = range(9)
QKV_ROWS, ATTENDED, GATED, Q, SCALE, TOTAL = range(9, 15)
SCRATCH, SCRATCH_BYTES = 15, 16  # memory of thread 0, and the distance to that of the next
ALL_CYCLES, ATTENTION_CYCLES = 24, 25  # written by thread 0, on a cache line of their own: what it spent on what
COMMAND_FIELDS = 26


class Sizes(NamedTuple):
    """Sizes that all layers share; `matrices` has tiles, blocks and padded columns of QKV, OUTPUT, GATE_UP and DOWN."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    """head_dim as the pages pad it."""
    head_bytes: int
    value_bytes: int
    """As in `Pages`."""
    action: int
    """What the gate-up product does with its sums: GATE + number of the activation."""
    matrices: I64


SIZES = 8
"""Numbers before those of the matrices in `sizes`, int64[SIZES + 12]."""


class Batch(NamedTuple):
    """The arrays of one micro-batch."""

    tokens: int
    slots: I32
    positions: I32
    table: int
    """Address of the table."""
    table_cols: int
    hidden: F32
    qkv: F32
    attended: F32
    gated: F32
    x: Quantised


class Thread(NamedTuple):
    """Which thread this is, and its scratch memory."""

    rank: int
    threads: int
    sync: I32
    sums: I32
    plan: Plan
    scratch: Scratch


@kernel
def work(
    rank: int,
    threads: int,
    sync: I32,
    command: I64,
    sizes: I64,
    eps: np.float32,
    layers: I64,
    cos: F32,
    sin: F32,
    like: Numbers,
) -> None:
    """Thread 0 starts a command, takes part in it and returns; the others wait for commands until one says stop.

    `like` is `KvFormat.like`: another type of pages is another compilation.
    """
    n = Sizes(sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[SIZES:])
    seen = 0
    while True:
        if rank == 0:
            change(sync, COMMAND)
        else:
            wait_while(sync, COMMAND, seen)
            seen = int(np.int32(seen + 1))  # wraps around as the word does
        if command[STOP]:
            return
        me = _thread(rank, threads, sync, command, n)
        batch = _batch(command, n, rank)
        began, attended = cycles(), 0
        for i in range(layers.shape[0]):
            attended += _attention_half(n, layers[i], eps, cos, sin, like, batch, me)
            _ffn_half(n, layers[i], eps, batch, me)
        if rank == 0:
            command[ALL_CYCLES], command[ATTENTION_CYCLES] = cycles() - began, attended
            return


def scratch_bytes(tokens: int, rows: int, longest: int, head_width: int, width: int) -> int:
    """Memory of one thread in whole lines: sums of tiles, the plan and the memory of attention, and a quantised row.

    rows, longest and head_width as in `attention_bytes`; width: padded columns of the widest matrix.
    """
    attention = plan_bytes(tokens) + attention_bytes(rows, longest, head_width)
    return 4 * GROUP * 32 + attention + round_up(width, 64) + 64


@inlined
def _thread(rank: int, threads: int, sync: I32, command: I64, n: Sizes) -> Thread:
    tokens = command[TOKENS]
    sums = command[SCRATCH] + rank * command[SCRATCH_BYTES]
    place = sums + 4 * GROUP * 32
    plan = plan_blocks(int32s_at(command[SLOT]), int32s_at(command[POSITION]), tokens, place)
    place += (12 * (tokens + 1) + 63) // 64 * 64
    own = attention_scratch(place, command[ROWS], command[LONGEST], n.width)
    return Thread(rank, threads, sync, int32s_at(sums), plan, own)


@inlined
def _batch(command: I64, n: Sizes, rank: int) -> Batch:
    tokens, m = command[TOKENS], n.matrices
    q, scale, total = command[Q], command[SCALE], command[TOTAL]
    if tokens == 1:  # each thread for itself
        own = command[SCRATCH] + (rank + 1) * command[SCRATCH_BYTES]
        scale, total = own - 64, own - 60
        q = own - 64 - (max(m[2], m[5], m[8], m[11]) + 63) // 64 * 64
    x = Quantised(tokens, int8s_at(q), floats_at(scale), int32s_at(total))
    return Batch(
        tokens,
        int32s_at(command[SLOT]),
        int32s_at(command[POSITION]),
        command[TABLE],
        command[TABLE_COLS],
        floats_at(command[HIDDEN]),
        floats_at(command[QKV_ROWS]),
        floats_at(command[ATTENDED]),
        floats_at(command[GATED]),
        x,
    )


@inlined
def _attention_half(
    n: Sizes, layer: I64, eps: np.float32, cos: F32, sin: F32, like: Numbers, batch: Batch, me: Thread
) -> int:
    """Returns the cycles that this thread spent on rope, cache and attention, waiting for the others included."""
    width = n.heads * n.head_dim
    _warm(n, layer, runtime(QKV), me)
    _quantise(batch.hidden, n.hidden, layer[ATTENTION_NORM], eps, batch.x, n.matrices[2], me)
    _linear(n, layer, runtime(QKV), batch.x, batch.qkv, 32 * n.matrices[0], runtime(STORE), me)
    began = cycles()
    _attend(n, layer, cos, sin, like, batch, me)
    attended = cycles() - began
    _warm(n, layer, runtime(OUTPUT), me)
    _quantise(batch.attended, width, layer[ATTENTION_SUB_NORM], eps, batch.x, n.matrices[5], me)
    _linear(n, layer, runtime(OUTPUT), batch.x, batch.hidden, n.hidden, runtime(ADD), me)
    return attended


@inlined
def _ffn_half(n: Sizes, layer: I64, eps: np.float32, batch: Batch, me: Thread) -> None:
    width = 16 * n.matrices[6]
    _warm(n, layer, runtime(GATE_UP), me)
    _quantise(batch.hidden, n.hidden, layer[FFN_NORM], eps, batch.x, n.matrices[8], me)
    _linear(n, layer, runtime(GATE_UP), batch.x, batch.gated, width, n.action, me)
    _warm(n, layer, runtime(DOWN), me)
    _quantise(batch.gated, width, layer[FFN_SUB_NORM], eps, batch.x, n.matrices[11], me)
    _linear(n, layer, runtime(DOWN), batch.x, batch.hidden, n.hidden, runtime(ADD), me)


@inner
def _quantise(rows: F32, width: int, gain_at: int, eps: np.float32, x: Quantised, cols: int, me: Thread) -> None:
    """Norm, where there is a gain, and quantise all rows; ready for every thread on return."""
    begin, end = (0, 1) if x.tokens == 1 else share(x.tokens, me.rank, me.threads)
    for t in range(begin, end):
        place, step = group_place(t, x.tokens, cols)
        x.scale[t], x.total[t] = quantise_row(
            rows, t * width, width, floats_at(gain_at), gain_at != 0, eps, x.q, place, step, cols
        )
    if x.tokens > 1:
        barrier(me.sync, me.threads)


@inner
def _warm(n: Sizes, layer: I64, matrix: int, me: Thread) -> None:
    """Ask for the first weights that this thread will need: they arrive while it quantises."""
    w = _weights(n, layer, matrix)
    begin, _ = share(w.tiles, me.rank, me.threads)
    for i in range(0, AHEAD, 64):
        prefetch(w.data, begin * w.blocks * BLOCK_BYTES + i)


@inner
def _linear(n: Sizes, layer: I64, matrix: int, x: Quantised, out: F32, width: int, action: int, me: Thread) -> None:
    """Compute the tiles of this thread; all tiles are done on return."""
    w = _weights(n, layer, matrix)
    begin, end = share(w.tiles, me.rank, me.threads)
    linear_tiles(w, x, out, width, action, begin, end, me.sums)
    barrier(me.sync, me.threads)
    advance(me.sync, me.rank)


@inner
def _weights(n: Sizes, layer: I64, matrix: int) -> Weights:
    at = 3 * ((matrix - QKV) // 2)
    tiles, blocks, cols = n.matrices[at], n.matrices[at + 1], n.matrices[at + 2]
    return Weights(bytes_at(layer[matrix]), floats_at(layer[matrix + 1]), tiles, blocks, cols)


@inlined
def _attend(n: Sizes, layer: I64, cos: F32, sin: F32, like: Numbers, batch: Batch, me: Thread) -> None:
    """Rope, cache and attention.  A (row, KV head) pair rotates the query heads of its group and its own key."""
    pages = Pages(layer[PAGES], n.kv_heads, n.head_dim, n.width, n.head_bytes, n.value_bytes, like)
    items, step = batch.tokens * n.kv_heads, 32 * n.matrices[0]
    for item in range(me.rank, items, me.threads):
        _rotate_and_store(n, item // n.kv_heads, item % n.kv_heads, step, cos, sin, batch, pages, me)
    barrier(me.sync, me.threads)  # another thread's row may be of the same sequence, its head of the same KV head
    rows = (batch.table, batch.table_cols, batch.slots, batch.positions)
    queries = Queries(batch.qkv, step, n.heads, *rows, batch.attended)
    attend_share(queries, pages, me.plan, me.rank, me.threads, me.scratch)
    barrier(me.sync, me.threads)
    advance(me.sync, me.rank)


@inlined
def _rotate_and_store(
    n: Sizes, t: int, head: int, step: int, cos: F32, sin: F32, batch: Batch, pages: Pages, me: Thread
) -> None:
    position, group = batch.positions[t], n.heads // n.kv_heads
    for g in range(head * group, (head + 1) * group):
        rotate_head(batch.qkv, t * step + g * n.head_dim, cos, sin, position)
    k = t * step + (n.heads + head) * n.head_dim
    v = k + n.kv_heads * n.head_dim
    rotate_head(batch.qkv, k, cos, sin, position)
    ids = int32s_at(batch.table + 4 * batch.slots[t] * batch.table_cols)
    page, place = ids[position // PAGE_TOKENS], position % PAGE_TOKENS
    store_head(batch.qkv, k, v, pages, page, head, place, me.scratch.levels)
