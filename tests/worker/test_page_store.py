"""Pages on their way out of a stage and back: nobody waits, everything is bounded, a store that fails is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from trireme_proto.errors import FrameRefused
from trireme_worker.page_redis import StoreUnavailable
from trireme_worker.page_store import PageStore
from trireme_worker.page_value import HEADER_BYTES, Bytes, PageIdentity, seal

SIZE = 1000
IDENTITY = PageIdentity("a" * 64, 0, 2, "float32")
KEYS = [bytes([n]) * 32 for n in range(40)]
NAMES = [IDENTITY.name(key) for key in KEYS]


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakePages:
    """Values in memory; may be told to fail, or to wait until it is let go on."""

    def __init__(self, clock: FakeClock) -> None:
        self.values: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.touched: list[tuple[str, int]] = []
        self.fails = False
        self.seconds = 0.0
        self.go_on = threading.Event()
        self.go_on.set()
        self.called = threading.Event()
        self._clock = clock

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.called.set()
        assert self.go_on.wait(20)
        self._clock.now += self.seconds
        if self.fails:
            raise StoreUnavailable

    def present(self, names: Sequence[str]) -> list[bool]:
        self._call("present")
        return [name in self.values for name in names]

    def leading(self, names: Sequence[str]) -> int:
        found = [*self.present(names), False]
        return found.index(False)

    def read(self, names: Sequence[str]) -> list[bytes]:
        self._call("read")
        return [self.values.get(name, b"") for name in names]

    def write(self, values: Sequence[tuple[str, int, memoryview]]) -> None:
        self._call("write")
        self.values |= {name: bytes(value) for name, _, value in values}

    def touch(self, pages: Sequence[tuple[str, int]]) -> None:
        self._call("touch")
        self.touched += pages

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pages(clock: FakeClock) -> FakePages:
    return FakePages(clock)


@pytest.fixture
def store(pages: FakePages, clock: FakeClock) -> Iterator[PageStore]:
    made = PageStore(pages, IDENTITY, SIZE, waiting_bytes=10 * SIZE, fetched_bytes=12 * SIZE, clock=clock)
    yield made
    pages.go_on.set()
    made.close()
    assert pages.calls[-1] == "close"


def fill(number: int, room: Bytes) -> None:
    room[:] = number


def held(pages: FakePages, count: int) -> None:
    """The store has so many pages."""
    for number, name in enumerate(NAMES[:count]):
        value = np.full(HEADER_BYTES + SIZE, number, np.uint8)
        seal(name, value)
        pages.values[name] = value.tobytes()


def test_saved_pages_are_found_and_fetched(store: PageStore, pages: FakePages) -> None:
    store.writer.save(5, KEYS[:6], fill)
    assert store.writer.flush(20)
    assert list(pages.values) == NAMES[:6]
    assert store.reader.find(KEYS[:10]) == 6
    assert store.reader.fetch(1, 5, KEYS[:8], 9.0)[0] == 6
    assert [set(page.tolist()) for page in store.reader.take(1, 4)] == [{5}, {6}, {7}, {8}]
    assert store.reader.fetched_bytes == store.writer.waiting_bytes == 0
    assert store.writer.flush(20)
    assert pages.touched == [(name, 5 + n) for n, name in enumerate(NAMES[:6])]  # it was used


def test_what_the_store_has_is_not_written_again(store: PageStore, pages: FakePages) -> None:
    held(pages, 3)
    store.writer.save(0, KEYS[:5], fill)
    assert store.writer.flush(20)
    assert (store.counters.written, store.counters.known) == (2, 3)
    assert pages.touched == [(name, n) for n, name in enumerate(NAMES[:3])]


def test_nobody_waits_for_a_store_that_hangs(store: PageStore, pages: FakePages) -> None:
    """Pages that there is no room for are skipped, and so are those behind them."""
    pages.go_on.clear()
    copied: list[int] = []
    for at in (0, 8, 16):
        store.writer.save(at, KEYS[at : at + 8], lambda number, _room: copied.append(number))
    assert copied == list(range(10))
    assert (store.counters.skipped, store.writer.waiting_bytes) == (14, 10 * SIZE)
    pages.go_on.set()
    assert store.writer.flush(20)
    assert (store.counters.written, store.writer.waiting_bytes) == (10, 0)
    store.writer.save(20, KEYS[20:22], fill)
    assert store.writer.flush(20)
    assert store.counters.written == 12


def test_a_store_that_fails_is_left_alone_for_longer_and_longer(
    store: PageStore, pages: FakePages, clock: FakeClock
) -> None:
    pages.fails = True
    pauses = []
    for _ in range(7):
        assert store.reader.find(KEYS[:2]) == 0
        asked, begun = len(pages.calls), clock.now
        while len(pages.calls) == asked:
            assert store.reader.find(KEYS[:2]) == store.reader.fetch(len(pauses), 0, KEYS[:2], 1.0)[0] == 0
            store.writer.save(0, KEYS[:2], fill)
            store.reader.forget(len(pauses))
            clock.now += 0.5
            if clock.now - begun >= store.patience.pause:
                break
        pauses.append(clock.now - begun)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert store.counters.failures == 7
    assert store.counters.skipped > 0
    pages.fails = False
    held(pages, 2)
    assert store.reader.find(KEYS[:2]) == 2
    pages.fails = True
    store.reader.find(KEYS[:2])
    assert store.patience.pause == 1


def test_reading_ends_when_its_time_is_up(pages: FakePages, clock: FakeClock) -> None:
    big = 5 << 20  # one page a round trip
    store = PageStore(pages, IDENTITY, big, clock=clock)
    for name in NAMES[:8]:
        value = np.zeros(HEADER_BYTES + big, np.uint8)
        seal(name, value)
        pages.values[name] = value.tobytes()
    pages.seconds = 1.0
    found, seconds = store.reader.fetch(1, 0, KEYS[:8], 2.5)
    assert (found, seconds) == (3, 3.0)
    assert store.reader.fetched_bytes == 3 * big
    assert store.reader.bytes_per_s() == big
    clock.now += 61
    assert store.reader.bytes_per_s() == 0  # so that it is measured again
    pages.seconds = 0
    store.close()


def test_memory_of_fetches_is_bounded(store: PageStore, pages: FakePages) -> None:
    held(pages, 40)
    assert [store.reader.fetch(n, 0, KEYS[:8], 9.0)[0] for n in (1, 2, 3)] == [8, 4, 0]
    assert store.reader.fetched_bytes == 12 * SIZE
    store.reader.forget(1)
    store.reader.forget(77)
    assert store.reader.fetched_bytes == 4 * SIZE
    assert store.reader.fetch(4, 0, KEYS[:8], 9.0)[0] == 8
    store.reader.forget_all()
    assert store.reader.fetched_bytes == 0


def test_a_fetch_that_is_forgotten_while_it_reads_holds_nothing(store: PageStore, pages: FakePages) -> None:
    held(pages, 8)
    pages.go_on.clear()
    reading = store.reader.threads.submit(store.reader.fetch, 1, 0, KEYS[:8], 9.0)
    assert pages.called.wait(20)
    store.reader.forget(1)
    pages.go_on.set()
    assert reading.result(20)[0] == 0
    assert store.reader.fetched_bytes == 0
    with pytest.raises(FrameRefused, match="8 pages of a fetch are to be restored, 0 are there"):
        store.reader.take(1, 8)


def test_what_is_forgotten_is_not_read_to_its_end(pages: FakePages, clock: FakeClock) -> None:
    big = 5 << 20  # one page a round trip
    store = PageStore(pages, IDENTITY, big, clock=clock)
    value = np.zeros(HEADER_BYTES + big, np.uint8)
    for name in NAMES[:4]:
        seal(name, value)
        pages.values[name] = value.tobytes()
    pages.go_on.clear()
    reading = store.reader.threads.submit(store.reader.fetch, 1, 0, KEYS[:4], 9.0)
    assert pages.called.wait(20)
    store.reader.forget(1)
    pages.go_on.set()
    assert reading.result(20)[0] == 0
    assert pages.calls.count("read") == 1
    store.close()


def test_a_number_is_one_fetch(store: PageStore, pages: FakePages) -> None:
    held(pages, 2)
    store.reader.fetch(1, 0, KEYS[:2], 9.0)
    with pytest.raises(FrameRefused, match="fetch 1 has begun before"):
        store.reader.fetch(1, 0, KEYS[:2], 9.0)
    with pytest.raises(FrameRefused, match="3 pages of a fetch are to be restored, 2 are there"):
        store.reader.take(1, 3)


@pytest.mark.parametrize("damage", [b"", b"TKV1", b"\0" * (HEADER_BYTES + SIZE)])
def test_reading_ends_before_a_bad_page(store: PageStore, pages: FakePages, damage: bytes) -> None:
    held(pages, 8)
    pages.values[NAMES[5]] = damage
    assert store.reader.fetch(1, 0, KEYS[:8], 9.0)[0] == 5
    assert store.counters.damaged == bool(damage)
    assert store.reader.fetched_bytes == 5 * SIZE


def test_closing_drops_what_waits(pages: FakePages, clock: FakeClock) -> None:
    store = PageStore(pages, IDENTITY, SIZE, clock=clock)
    store.close()
    store.writer.save(0, KEYS[:3], fill)
    assert (pages.values, store.counters.skipped) == ({}, 3)
