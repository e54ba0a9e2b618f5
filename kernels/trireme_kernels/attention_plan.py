"""Which part of a micro-batch's attention a thread computes: an equal share of the work, not of the rows.

A block is up to ROWS neighbouring rows of the batch that are neighbouring positions of one sequence.  The work of a
block and one query head is the number of positions that its rows see, and a little for each row.  Blocks times heads
lie on a line of work, and a thread takes those that begin in its part of it:

    |b0 h0|b0 h1|b0 h2|b0 h3|  b1 h0  |  b1 h1  |  b1 h2  |  b1 h3  |b2 h0| ...
    |      thread 0                |       thread 1               |   thread 2 ...

A row's own sums are never split.  What is chosen here changes no bit.
"""

from typing import NamedTuple

import numpy as np

from trireme_kernels.arrays import I32, I64
from trireme_kernels.attention_scores import ROWS
from trireme_kernels.jit import inner

_ROW_WORK = 64
"""Positions that cost as much as starting a row."""


class Plan(NamedTuple):
    """Blocks of a micro-batch."""

    blocks: int
    first: I32
    """Row at which each block begins; one more entry for the end."""
    work: I64
    """Work of a head before each block; one more entry for all."""
    longest: int
    """Most positions that a row sees."""
    rows: int
    """Rows of the largest block."""


@inner
def plan_blocks(slots: I32, positions: I32) -> Plan:
    """Cut a micro-batch into blocks."""
    tokens = slots.size
    first, work = np.empty(tokens + 1, np.int32), np.empty(tokens + 1, np.int64)
    blocks, longest, rows, total = 0, 0, 0, 0
    for t in range(tokens):
        follows = t > 0 and slots[t] == slots[t - 1] and positions[t] == positions[t - 1] + 1
        if not follows or t - first[blocks - 1] == ROWS:
            first[blocks], work[blocks] = t, total
            blocks += 1
        rows = max(rows, t + 1 - first[blocks - 1])
        longest = max(longest, positions[t] + 1)
        total += positions[t] + 1 + _ROW_WORK
    first[blocks], work[blocks] = tokens, total
    return Plan(blocks, first, work, longest, rows)


@inner
def heads_of(plan: Plan, block: int, heads: int, rank: int, threads: int) -> tuple[int, int]:
    """The query heads begin .. end-1 of a block that are this thread's."""
    total, before = plan.work[plan.blocks] * heads, plan.work[block] * heads
    each = plan.work[block + 1] - plan.work[block]
    begin = (total * rank // threads - before + each - 1) // each
    end = (total * (rank + 1) // threads - before + each - 1) // each
    return min(max(begin, 0), heads), min(max(end, 0), heads)
