"""Pages of keys and values: one owner each, in order; what does not fit is refused and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trireme_proto.errors import FrameRefused
from trireme_worker.kv_cache import NO_PAGE, KVCache, pages_for

SLOTS, CONTEXT = 5, 70


def cache(pages: int, layers: int = 0, dtype: str = "float32") -> KVCache:
    return KVCache(layers=layers, pages=pages, kv_heads=2, head_dim=4, slots=SLOTS, context=CONTEXT, dtype=dtype)


class CacheMachine(RuleBasedStateMachine):
    """Against a model in which every page is an object with a list of owners."""

    @initialize(pages=st.integers(0, 20))
    def begin(self, pages: int) -> None:
        self.kv, self.pages = cache(pages), pages
        self.lengths, self.certain = [0] * SLOTS, [0] * SLOTS
        self.owners: list[list[object]] = [[] for _ in range(SLOTS)]

    @rule(
        slot=st.integers(0, SLOTS - 1),
        off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        back=st.integers(0, 8),
        count=st.integers(1, 40),
        drafts=st.integers(0, 8),
    )
    def extend(self, slot: int, off: int, back: int, count: int, drafts: int) -> None:
        drafts = min(drafts, count - 1)
        position = max(self.certain[slot], self.lengths[slot] - back) + off
        wanted = pages_for(position + count) - len(self.owners[slot])
        good = self.certain[slot] <= position <= self.lengths[slot] and position + count <= CONTEXT
        before = self.kv.table.copy()
        if good and self.used() + wanted <= self.pages:
            self.kv.extend(slot, position, count, drafts)
            self.lengths[slot], self.certain[slot] = position + count, position + count - drafts
            self.owners[slot] = [*self.owners[slot], *(object() for _ in range(wanted))][: pages_for(position + count)]
            kept = min(pages_for(position), len(self.owners[slot]))
            assert (self.kv.table[slot, :kept] == before[slot, :kept]).all()  # pages stay where they are
        else:
            with pytest.raises(FrameRefused):
                self.kv.extend(slot, position, count, drafts)
            assert (self.kv.table == before).all()

    @rule(slot=st.integers(0, SLOTS - 1), donor=st.integers(0, SLOTS - 1), pages=st.integers(0, 4))
    def share(self, slot: int, donor: int, pages: int) -> None:
        if slot == donor:
            return
        if 0 < 16 * pages <= self.certain[donor]:
            self.kv.share(slot, donor, pages)
            self.lengths[slot] = self.certain[slot] = 16 * pages
            self.owners[slot] = self.owners[donor][:pages]
        else:
            with pytest.raises(FrameRefused, match="are to be shared"):
                self.kv.share(slot, donor, pages)

    @rule(slot=st.integers(0, SLOTS - 1))
    def release(self, slot: int) -> None:
        self.kv.release(slot)
        self.lengths[slot] = self.certain[slot] = 0
        self.owners[slot] = []

    @rule()
    def reset(self) -> None:
        self.kv.reset()
        self.lengths, self.certain = [0] * SLOTS, [0] * SLOTS
        self.owners = [[] for _ in range(SLOTS)]

    def used(self) -> int:
        return len({page for pages in self.owners for page in pages})

    @invariant()
    def adds_up(self) -> None:
        assert self.kv.check_integrity() == ""
        assert self.kv.lengths.tolist() == self.lengths
        assert self.kv.pages_used == self.used()
        assert self.kv.slots_used == sum(1 for n in self.lengths if n)
        same: dict[object, int] = {}
        for slot, length in enumerate(self.lengths):
            filled = pages_for(length)
            assert (self.kv.table[slot, filled:] == NO_PAGE).all()
            for page, owner in zip(self.kv.table[slot, :filled].tolist(), self.owners[slot], strict=True):
                assert same.setdefault(owner, page) == page
        assert len(set(same.values())) == len(same)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize(("dtype", "head_bytes"), [("float32", 4096), ("float16", 2048), ("int8", 1152)])
def test_shapes(dtype: str, head_bytes: int) -> None:
    """A head of 4 elements is padded to 32; a page has 16 keys and 16 values, in int8 with a scale for each."""
    kv = cache(7, layers=3, dtype=dtype)
    assert kv.format.dtype == dtype
    assert [a.shape for a in kv.memory] == [(7, 2, head_bytes)] * 3
    assert {a.dtype for a in kv.memory} == {np.dtype(np.uint8)}
    assert (kv.table.shape, kv.table.dtype, kv.lengths.dtype) == ((SLOTS, 5), np.int32, np.int32)


@pytest.mark.parametrize(
    ("slot", "position", "count", "why"),
    [
        (1, 19, 1, "slot 1 holds 20 tokens, the row starts at 19"),
        (1, 21, 1, "slot 1 holds 20 tokens, the row starts at 21"),
        (0, 1, 1, "slot 0 holds 0 tokens, the row starts at 1"),
        (1, 20, 51, "slot 1 would hold 71 tokens, the context is 70"),
        (0, 0, 33, "slot 0 needs 3 KV pages, 2 are free"),
        (1, 12, 1, "slot 1 holds 20 tokens, the row starts at 12"),
    ],
)
def test_reasons_to_refuse(slot: int, position: int, count: int, why: str) -> None:
    kv = cache(4)
    kv.extend(1, 0, 20)
    with pytest.raises(FrameRefused, match=why):
        kv.extend(slot, position, count)
    kv.extend(1, 20, 44)  # exactly what is left
    assert kv.pages_used == 4


def test_drafts_may_be_written_again_and_nothing_else() -> None:
    kv = cache(4)
    kv.extend(0, 0, 20, drafts=5)
    with pytest.raises(FrameRefused, match="slot 0 holds 15 to 20 tokens, the row starts at 14"):
        kv.extend(0, 14, 1)
    assert kv.pages_used == 2
    kv.extend(0, 15, 1)
    assert (kv.pages_used, kv.lengths[0]) == (1, 16)
    with pytest.raises(FrameRefused, match="holds 16 tokens"):
        kv.extend(0, 15, 1)


def test_pages_are_shared_read_only_and_outlive_their_first_owner() -> None:
    kv = cache(4)
    kv.extend(0, 0, 40, drafts=8)
    kv.extend(1, 0, 3)
    kv.share(1, 0, 2)
    assert (kv.table[1, :2].tolist(), kv.pages_used) == (kv.table[0, :2].tolist(), 3)
    kv.extend(1, 32, 5)
    assert kv.table[1, 2] != kv.table[0, 2]
    kv.release(0)
    assert (kv.pages_used, kv.check_integrity()) == (3, "")
    kv.release(1)
    assert kv.pages_used == 0


@pytest.mark.parametrize(("pages", "certain"), [(0, 32), (3, 32), (2, 31)])
def test_what_cannot_be_shared(pages: int, certain: int) -> None:
    kv = cache(4)
    kv.extend(0, 0, 33, drafts=33 - certain)
    with pytest.raises(FrameRefused, match=f"slot 0 holds {certain} tokens, {pages} pages are to be shared"):
        kv.share(1, 0, pages)


def test_damage_is_found() -> None:
    def damaged(change: str) -> str:
        kv = cache(6)
        kv.extend(0, 0, 20)
        kv.extend(2, 0, 3)
        exec(change, {"kv": kv})  # noqa: S102  (the test's own words)
        return kv.check_integrity()

    assert "not the 6 pages, once each" in damaged("kv.table[0, 1] = kv.table[2, 0]")  # two owners, and one lost
    assert damaged("kv.share(3, 0, 1); kv._owners[int(kv.table[0, 0])] = 1") == (
        "pages have other owners than the books say"
    )
    assert damaged("kv.share(3, 0, 1); kv._certain[3] = 15") == "slot 3 could write to pages that are shared"
    assert damaged("kv._certain[0] = 21") == "slot 0 holds 20 tokens, 21 of them certain"
    assert "not the 6 pages, once each" in damaged("kv.table[0, 1] = -1")  # lost
    assert "not the 6 pages, once each" in damaged("kv._free.append(int(kv.table[0, 0]))")  # owned and free
    assert "not the 6 pages, once each" in damaged("kv.table[0, 0] = 6")  # outside
    assert damaged("kv.lengths[2] = 17") == "slots [2] hold other pages than their lengths need"
    assert damaged("kv.table[0, [0, 3]] = kv.table[0, [3, 0]]") == "slots [0] hold other pages than their lengths need"
    assert damaged("pass") == ""
