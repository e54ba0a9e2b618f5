"""Paged keys and values of the sequences that a stage holds.

Owns pages, slots and the table between them; knows nothing of layers' weights, frames or the network. A sequence lives
in a slot; its positions fill pages of 16 tokens each, in order:

    slot 5, 37 tokens:   table[5] = [ 12 |  3 | 40 | -1 | -1 ]
    position 35          page 40 (35 // 16 = 2), row 3 of it (35 % 16)

One page id stands for the same page in every layer of the stage, so one table serves all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trireme_kernels import PAGE_TOKENS, KvFormat
from trireme_proto.errors import FrameRefused

NO_PAGE = -1


def pages_for(tokens: int) -> int:
    """Pages that hold so many tokens of one sequence."""
    return -(-tokens // PAGE_TOKENS)


class KVCache:
    """Pages for `layers` layers, shared by up to `slots` sequences of at most `context` tokens each.

    `format`: how keys and values are stored; `memory[layer]`: its pages, uint8 [pages, kv_heads, head_bytes]; `table`:
    int32 [slots, max_pages], -1 where there is no page; `lengths`: int32 [slots]. Memory is touched, and so taken, only
    as pages are filled.
    """

    def __init__(self, form: KvFormat, *, layers: int, pages: int, slots: int, context: int) -> None:
        self.format = form
        self.memory = [form.empty(pages) for _ in range(layers)]
        self.pages, self.slots, self.context = pages, slots, context
        self.table: NDArray[np.int32]
        self.lengths: NDArray[np.int32]
        self.reset()

    def reset(self) -> None:
        """Frees everything."""
        self.table = np.full((self.slots, pages_for(self.context)), NO_PAGE, np.int32)
        self.lengths = np.zeros(self.slots, np.int32)
        self._free = list(range(self.pages - 1, -1, -1))

    def extend(self, slot: int, position: int, count: int) -> None:
        """Makes room for `count` tokens at `position` of a slot, which must be its length so far. FrameRefused
        otherwise.
        """
        if position != self.lengths[slot]:
            raise FrameRefused(f"slot {slot} holds {self.lengths[slot]} tokens, the row starts at {position}")
        if position + count > self.context:
            raise FrameRefused(f"slot {slot} would hold {position + count} tokens, the context is {self.context}")
        held, wanted = pages_for(position), pages_for(position + count)
        if wanted - held > len(self._free):
            raise FrameRefused(f"slot {slot} needs {wanted - held} KV pages, {len(self._free)} are free")
        for i in range(held, wanted):
            self.table[slot, i] = self._free.pop()
        self.lengths[slot] = position + count

    def release(self, slot: int) -> None:
        """Frees a slot and its pages; a slot that is free already stays so."""
        held = pages_for(int(self.lengths[slot]))
        self._free.extend(int(page) for page in self.table[slot, :held])
        self.table[slot, :held] = NO_PAGE
        self.lengths[slot] = 0

    @property
    def pages_used(self) -> int:
        return self.pages - len(self._free)

    @property
    def slots_used(self) -> int:
        return int(np.count_nonzero(self.lengths))

    def check_integrity(self) -> str:
        """Empty where each page has exactly one owner and each table fits its length; else what does not add up."""
        owned = self.table[self.table != NO_PAGE].tolist()
        if sorted(owned + self._free) != list(range(self.pages)):
            return f"{len(owned)} owned + {len(self._free)} free pages are not the {self.pages} pages, once each"
        needed = np.arange(self.table.shape[1]) * PAGE_TOKENS < self.lengths[:, np.newaxis]
        wrong = np.flatnonzero(((self.table != NO_PAGE) != needed).any(axis=1)).tolist()
        return f"slots {wrong} hold other pages than their lengths need" if wrong else ""
