"""Memory of a backlog goes back to the system, once, and only where it is worth while."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trireme_worker.heap import Heap

MB = 1 << 20
BACKLOG = """
import ctypes, sys, threading
import numpy as np, psutil
from trireme_worker.page_store import PageStore
from trireme_worker.page_value import HEADER_BYTES, PageIdentity

PAGE, PAGES, go_on = 64 << 10, 3000, threading.Event()
class Away:
    def present(self, names): go_on.wait(60); return [False] * len(names)
    def write(self, values): pass
    def touch(self, pages): pass
    def close(self): pass

def resident(): return psutil.Process().memory_info().rss >> 20
def copy(number, room):
    room[:] = 1
    kept.append(bytearray(2000))  # between the pages, so that the heap cannot shrink from its top

kept, large = [], np.ones(20 << 20, np.uint8)
del large  # from now on glibc keeps what is smaller
store = PageStore(Away(), PageIdentity("a" * 64, 0, 2, "float32"), PAGE)
before = resident()
store.writer.save(0, [n.to_bytes(32) for n in range(PAGES)], copy)
full = resident()
go_on.set()
assert store.writer.flush(60)
threading.Event().wait(3)
print(before, full, resident())
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_a_backlog_took_is_given_back_a_moment_after_it_has_gone(clock: Clock) -> None:
    given: list[float] = []
    heap = Heap(clock=clock, trim=lambda: given.append(clock.now))
    heap.grown(100 * MB)
    for now, held in ((1.0, 0), (5.0, -70 * MB), (6.0, -25 * MB), (6.9, 0), (7.1, -5 * MB), (9.0, 0)):
        clock.now = now
        heap.grown(held)
        heap.give_back()
    assert given == [7.1]
    assert heap.look_again is None


def test_it_must_stay_away_for_that_moment(clock: Clock) -> None:
    given: list[float] = []
    heap = Heap(clock=clock, trim=lambda: given.append(clock.now))
    for now, held in ((0.0, 100 * MB), (1.0, -100 * MB), (1.5, 90 * MB), (2.5, -90 * MB), (3.4, 0), (3.6, 0)):
        clock.now = now
        heap.grown(held)
        assert heap.look_again == 1.0
        heap.give_back()
    assert given == [3.6]


def test_a_small_backlog_is_left_to_the_allocator(clock: Clock) -> None:
    heap = Heap(clock=clock, trim=lambda: pytest.fail("this was not worth while"))
    for _ in range(20):
        heap.grown(60 * MB)
        assert heap.look_again is None
        heap.grown(-60 * MB)
        clock.now += 10
        heap.give_back()


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc")
def test_a_stage_gives_back_the_memory_of_pages_that_waited_for_an_absent_store() -> None:
    done = subprocess.run([sys.executable, "-c", BACKLOG], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    before, full, after = map(int, done.stdout.split())
    assert full - before > 150
    assert after - before < 40
