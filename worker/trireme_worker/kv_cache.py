"""Paged keys and values of the sequences that a stage holds.

Owns pages, slots and the table between them; knows nothing of layers' weights, frames or the network. A sequence lives
in a slot; its positions fill pages of 16 tokens each, in order:

    slot 5, 37 tokens:   table[5] = [ 12 |  3 | 40 | -1 | -1 ]
    position 35          page 40 (35 // 16 = 2), row 3 of it (35 % 16)

One page id stands for the same page in every layer of the stage, so one table serves all of them. Slots whose
sequences begin alike can share full pages; a slot writes only behind its certain tokens, which are all that it shares:

    slot 5:   [ 12 |  3 | 40 ]                  lengths[5] = 37, certain 34: positions 34, 35 and 36 were guessed
    slot 7:   [ 12 |  3 | 18 | 22 ]             pages 12 and 3 have two owners
"""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(
        self,
        *,
        layers: int,
        pages: int,
        kv_heads: int,
        head_dim: int,
        slots: int,
        context: int,
        dtype: str = "float32",
    ) -> None:
        self.format = KvFormat(kv_heads, head_dim, dtype)
        self.memory = [self.format.empty(pages) for _ in range(layers)]
        self.pages, self.slots, self.context = pages, slots, context
        self.table: NDArray[np.int32]
        self.lengths: NDArray[np.int32]
        self.reset()

    def reset(self) -> None:
        """Frees everything."""
        self.table = np.full((self.slots, pages_for(self.context)), NO_PAGE, np.int32)
        self.lengths = np.zeros(self.slots, np.int32)
        self._certain = [0] * self.slots
        self._owners = [0] * self.pages
        self._free = list(range(self.pages - 1, -1, -1))

    def extend(self, slot: int, position: int, count: int, drafts: int = 0) -> None:
        """Makes room for `count` tokens at `position` of a slot, which must be its length so far, or go back over
        tokens that were drafts. The last `drafts` of the new ones are drafts. FrameRefused otherwise.
        """
        certain, length = self._certain[slot], int(self.lengths[slot])
        if not certain <= position <= length:
            held = f"{length}" if certain == length else f"{certain} to {length}"
            raise FrameRefused(f"slot {slot} holds {held} tokens, the row starts at {position}")
        if position + count > self.context:
            raise FrameRefused(f"slot {slot} would hold {position + count} tokens, the context is {self.context}")
        had, wanted = pages_for(length), pages_for(position + count)
        if wanted - had > len(self._free):
            raise FrameRefused(f"slot {slot} needs {wanted - had} KV pages, {len(self._free)} are free")
        for i in range(had, wanted):
            self.table[slot, i] = self._take()
        self._give_up(slot, wanted, had)
        self.lengths[slot] = position + count
        self._certain[slot] = position + count - drafts

    def share(self, slot: int, from_slot: int, pages: int) -> None:
        """Frees a slot, and lets it have the first `pages` pages of another one, which must be full of certain tokens.
        FrameRefused otherwise.
        """
        tokens = pages * PAGE_TOKENS
        if not 0 < tokens <= self._certain[from_slot]:
            raise FrameRefused(
                f"slot {from_slot} holds {self._certain[from_slot]} tokens, {pages} pages are to be shared"
            )
        shared = self.table[from_slot, :pages].copy()
        for page in shared.tolist():  # before the release: the slot may hold some of them already
            self._owners[page] += 1
        self.release(slot)
        self.table[slot, :pages] = shared
        self.lengths[slot] = self._certain[slot] = tokens

    def restore(self, slot: int, first_page: int, contents: Sequence[NDArray[np.uint8]]) -> None:
        """Puts pages, uint8 [page_bytes] each, behind the `first_page` full pages of certain tokens that a slot holds.
        FrameRefused where it holds anything else, or there is no room.
        """
        position = first_page * PAGE_TOKENS
        if self.lengths[slot] != position:
            raise FrameRefused(f"slot {slot} holds {self.lengths[slot]} tokens, pages are to follow {position}")
        self.extend(slot, position, len(contents) * PAGE_TOKENS)
        for page, content in zip(self.table[slot, first_page : first_page + len(contents)], contents, strict=True):
            for memory, layer in zip(self.memory, np.split(content, max(1, len(self.memory))), strict=True):
                memory[page] = layer.reshape(memory.shape[1:])

    def copy_page(self, slot: int, number: int, room: NDArray[np.uint8]) -> None:
        """Copies a slot's page `number` of every layer, in order, into `room`, uint8 [page_bytes]."""
        page = self.table[slot, number]
        for memory, layer in zip(self.memory, np.split(room, max(1, len(self.memory))), strict=True):
            layer[:] = memory[page].ravel()

    def certain_pages(self, slot: int) -> int:
        """Full pages of certain tokens: nobody writes to them any more."""
        return self._certain[slot] // PAGE_TOKENS

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers together."""
        return len(self.memory) * self.format.page_bytes

    def release(self, slot: int) -> None:
        """Frees a slot and those of its pages that no other has; a slot that is free already stays so."""
        self._give_up(slot, 0, pages_for(int(self.lengths[slot])))
        self.lengths[slot] = self._certain[slot] = 0

    @property
    def pages_used(self) -> int:
        return self.pages - len(self._free)

    @property
    def slots_used(self) -> int:
        return int(np.count_nonzero(self.lengths))

    def check_integrity(self) -> str:
        """Empty where each page is free or has exactly its owners, each table fits its length, and nobody may write to
        what is shared; else what does not add up.
        """
        owned = self.table[self.table != NO_PAGE]
        distinct, free = set(owned.tolist()), len(self._free)
        if sorted([*distinct, *self._free]) != list(range(self.pages)):
            return f"{len(distinct)} owned + {free} free pages are not the {self.pages} pages, once each"
        if np.bincount(owned, minlength=self.pages).tolist() != self._owners:
            return "pages have other owners than the books say"
        needed = np.arange(self.table.shape[1]) * PAGE_TOKENS < self.lengths[:, np.newaxis]
        wrong = np.flatnonzero(((self.table != NO_PAGE) != needed).any(axis=1)).tolist()
        if wrong:
            return f"slots {wrong} hold other pages than their lengths need"
        return self._check_sharing()

    def _check_sharing(self) -> str:
        for slot, certain in enumerate(self._certain):
            if not 0 <= certain <= self.lengths[slot]:
                return f"slot {slot} holds {self.lengths[slot]} tokens, {certain} of them certain"
            writable = self.table[slot, certain // PAGE_TOKENS : pages_for(int(self.lengths[slot]))].tolist()
            if any(self._owners[page] > 1 for page in writable):
                return f"slot {slot} could write to pages that are shared"
        return ""

    def _take(self) -> int:
        page = self._free.pop()
        self._owners[page] = 1
        return page

    def _give_up(self, slot: int, begin: int, end: int) -> None:
        """Takes pages begin, begin + 1, ... end - 1 away from a slot."""
        for page in self.table[slot, begin:end].tolist():
            self._owners[page] -= 1
            if not self._owners[page]:
                self._free.append(page)
        self.table[slot, begin:end] = NO_PAGE
