"""Which part of a micro-batch's attention a thread computes: an equal share of the work, not of the rows.

A block is up to ROWS neighbouring rows of the batch that are neighbouring positions of one sequence; a chunk is HEADS
query heads of one KV head (the last one of a KV head may have fewer).  The work of a block and a chunk is the number of
positions that its rows see, and a little for each row.  Blocks times chunks lie on a line of work, and a thread takes
those that begin in its part of it:

    |b0 c0|b0 c1|b0 c2|b0 c3|  b1 c0  |  b1 c1  |  b1 c2  |  b1 c3  |b2 c0| ...
    |      thread 0                |       thread 1               |   thread 2 ...

A row's own sums are never split.  What is chosen here changes no bit.
"""

from typing import NamedTuple

from trireme_kernels.arrays import I32, I64, round_up
from trireme_kernels.attention_scores import ROWS
from trireme_kernels.jit import inner
from trireme_kernels.simd import int32s_at, int64s_at

_ROW_WORK = 64
"""Positions that cost as much as starting a row."""


class Plan(NamedTuple):
    """Blocks of a micro-batch."""

    blocks: int
    first: I32
    """Row at which each block begins; one more entry for the end."""
    work: I64
    """Work of a chunk before each block; one more entry for all."""


def plan_bytes(tokens: int) -> int:
    """Memory for a plan, in whole lines."""
    return round_up(12 * (tokens + 1), 64)


@inner
def plan_blocks(slots: I32, positions: I32, tokens: int, at: int) -> Plan:
    """Cut a micro-batch into blocks; `plan_bytes` at an address are used."""
    work, first = int64s_at(at), int32s_at(at + 8 * (tokens + 1))
    blocks, total = 0, 0
    for t in range(tokens):
        follows = t > 0 and slots[t] == slots[t - 1] and positions[t] == positions[t - 1] + 1
        if not follows or t - first[blocks - 1] == ROWS:
            first[blocks], work[blocks] = t, total
            blocks += 1
        total += positions[t] + 1 + _ROW_WORK
    first[blocks], work[blocks] = tokens, total
    return Plan(blocks, first, work)


@inner
def chunks_of(plan: Plan, block: int, chunks: int, rank: int, threads: int) -> tuple[int, int]:
    """The chunks begin .. end-1 of a block that are this thread's."""
    total, before = plan.work[plan.blocks] * chunks, plan.work[block] * chunks
    each = plan.work[block + 1] - plan.work[block]
    begin = (total * rank // threads - before + each - 1) // each
    end = (total * (rank + 1) // threads - before + each - 1) // each
    return min(max(begin, 0), chunks), min(max(end, 0), chunks)
