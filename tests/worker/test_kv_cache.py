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
    @initialize(pages=st.integers(0, 20))
    def begin(self, pages: int) -> None:
        self.kv, self.pages = cache(pages), pages
        self.lengths = [0] * SLOTS

    @rule(slot=st.integers(0, SLOTS - 1), off=st.sampled_from([0, 0, 0, 0, -1, 1]), count=st.integers(1, 40))
    def extend(self, slot: int, off: int, count: int) -> None:
        held = sum(pages_for(n) for n in self.lengths)
        wanted = pages_for(self.lengths[slot] + count) - pages_for(self.lengths[slot])
        fits = held + wanted <= self.pages and self.lengths[slot] + count <= CONTEXT
        before = self.kv.table.copy()
        if off == 0 and fits:
            self.kv.extend(slot, self.lengths[slot], count)
            self.lengths[slot] += count
            kept = before[before != NO_PAGE]
            assert (self.kv.table[before != NO_PAGE] == kept).all()  # pages stay where they are
        else:
            with pytest.raises(FrameRefused):
                self.kv.extend(slot, self.lengths[slot] + off, count)
            assert (self.kv.table == before).all()

    @rule(slot=st.integers(0, SLOTS - 1))
    def release(self, slot: int) -> None:
        self.kv.release(slot)
        self.lengths[slot] = 0

    @rule()
    def reset(self) -> None:
        self.kv.reset()
        self.lengths = [0] * SLOTS

    @invariant()
    def adds_up(self) -> None:
        assert self.kv.check_integrity() == ""
        assert self.kv.lengths.tolist() == self.lengths
        assert self.kv.pages_used == sum(pages_for(n) for n in self.lengths)
        assert self.kv.slots_used == sum(1 for n in self.lengths if n)
        for slot, length in enumerate(self.lengths):
            filled = pages_for(length)
            assert (self.kv.table[slot, :filled] >= 0).all()
            assert (self.kv.table[slot, filled:] == NO_PAGE).all()


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
    ],
)
def test_reasons_to_refuse(slot: int, position: int, count: int, why: str) -> None:
    kv = cache(4)
    kv.extend(1, 0, 20)
    with pytest.raises(FrameRefused, match=why):
        kv.extend(slot, position, count)
    kv.extend(1, 20, 44)  # exactly what is left
    assert kv.pages_used == 4


def test_damage_is_found() -> None:
    def damaged(change: str) -> str:
        kv = cache(6)
        kv.extend(0, 0, 20)
        kv.extend(2, 0, 3)
        exec(change, {"kv": kv})  # noqa: S102  (the test's own words)
        return kv.check_integrity()

    assert "not the 6 pages, once each" in damaged("kv.table[0, 1] = kv.table[2, 0]")  # two owners
    assert "not the 6 pages, once each" in damaged("kv.table[0, 1] = -1")  # lost
    assert "not the 6 pages, once each" in damaged("kv._free.append(int(kv.table[0, 0]))")  # owned and free
    assert "not the 6 pages, once each" in damaged("kv.table[0, 0] = 6")  # outside
    assert damaged("kv.lengths[2] = 17") == "slots [2] hold other pages than their lengths need"
    assert damaged("kv.table[0, [0, 3]] = kv.table[0, [3, 0]]") == "slots [0] hold other pages than their lengths need"
    assert damaged("pass") == ""
