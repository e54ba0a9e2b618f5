"""Frames that save and restore KV pages, by hand: refused where the stage does not hold what they say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.frames import row, stepper, token_frame
from tests.worker.test_page_store import FakeClock, FakePages

from trireme_proto.errors import FrameRefused
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.page_store import PageStore
from trireme_worker.page_value import PageIdentity
from trireme_worker.stepper import Stepper

KEYS = [bytes([n]) * 32 for n in range(4)]
IDS = list(range(300, 340))


@pytest.fixture
def fed() -> Iterator[Stepper]:
    """The first stage with 40 tokens in slot 2, of which the first two pages were saved."""
    made = stepper(range(2), stage=0)
    clock = FakeClock()
    made.pages = PageStore(
        FakePages(clock), PageIdentity("a" * 64, 0, 2, "float32"), made.model.kv.page_bytes, clock=clock
    )
    frame = token_frame(1, [row(2, 0, 40)], IDS)
    frame.save.add(slot=2, first_page=0, keys=KEYS[:2])
    made.step(frame, 0)
    assert made.pages.writer.flush(20)
    yield made
    made.pages.close()
    made.model.close()


def with_pages(stage: Stepper, fetch: int) -> PageStore:
    assert stage.pages is not None
    assert stage.pages.reader.fetch(fetch, 0, KEYS[:2], 9.0)[0] == 2
    return stage.pages


def contents(stage: Stepper, slot: int, pages: int) -> list[list[bytes]]:
    kv = stage.model.kv
    return [[memory[page].tobytes() for memory in kv.memory] for page in kv.table[slot, :pages]]


def test_what_is_restored_is_what_was_saved(fed: Stepper) -> None:
    pages = with_pages(fed, 5)
    frame = token_frame(2, [row(4, 32, 8)], IDS[32:])
    frame.restore.add(slot=4, fetch=5, first_page=0, pages=2)
    fed.step(frame, 0)
    assert contents(fed, 4, 3) == contents(fed, 2, 3)
    assert not set(fed.model.kv.table[4, :3]) & set(fed.model.kv.table[2, :3])
    assert pages.reader.fetched_bytes == 0
    assert fed.model.kv.check_integrity() == ""


def test_a_page_can_follow_those_that_are_held(fed: Stepper) -> None:
    pages = with_pages(fed, 5)
    frame = token_frame(2, [row(4, 0, 16)], IDS[:16])
    fed.step(frame, 0)
    pages.reader.forget(5)
    assert pages.reader.fetch(6, 1, KEYS[1:2], 9.0)[0] == 1
    frame = token_frame(3, [row(4, 32, 8)], IDS[32:])
    frame.restore.add(slot=4, fetch=6, first_page=1, pages=1)
    fed.step(frame, 0)
    assert contents(fed, 4, 3) == contents(fed, 2, 3)


@pytest.mark.parametrize(
    ("restore", "message"),
    [
        (pb.Restore(slot=4, fetch=6, pages=2), "2 pages of a fetch are to be restored, 0 are there"),
        (pb.Restore(slot=4, fetch=5, pages=3), "3 pages of a fetch are to be restored, 2 are there"),
        (pb.Restore(slot=4, fetch=5, first_page=1, pages=2), "slot 4 holds 0 tokens, pages are to follow 16"),
        (pb.Restore(slot=2, fetch=5, first_page=2, pages=2), "slot 2 holds 40 tokens, pages are to follow 32"),
    ],
)
def test_restores_that_are_refused(fed: Stepper, restore: pb.Restore, message: str) -> None:
    with_pages(fed, 5)
    with pytest.raises(FrameRefused, match=message):
        fed.step(pb.Frame(epoch=1, step=2, restore=[restore]), 0)


def test_without_a_store_nothing_is_restored_and_saving_does_nothing() -> None:
    stage = stepper(range(2), stage=0)
    frame = token_frame(1, [row(2, 0, 16)], IDS[:16])
    frame.save.add(slot=2, first_page=0, keys=KEYS[:1])
    stage.step(frame, 0)
    with pytest.raises(FrameRefused, match="no page store to restore from"):
        stage.step(pb.Frame(epoch=1, step=2, restore=[pb.Restore(slot=1, fetch=1, pages=1)]), 0)
    stage.model.close()


def test_what_may_still_change_is_not_saved(fed: Stepper) -> None:
    frame = pb.Frame(epoch=1, step=2)
    frame.save.add(slot=2, first_page=2, keys=KEYS[2:3])
    with pytest.raises(FrameRefused, match="slot 2 holds 2 full pages, 3 are to be saved"):
        fed.step(frame, 0)


def test_an_epoch_begins_without_fetched_pages(fed: Stepper) -> None:
    pages = with_pages(fed, 5)
    fed.begin(2, 0)
    assert pages.reader.fetched_bytes == 0


def test_forgotten_pages_are_freed(fed: Stepper) -> None:
    pages = with_pages(fed, 5)
    fed.step(pb.Frame(epoch=1, step=2, forget=[5, 99]), 0)
    assert pages.reader.fetched_bytes == 0
    assert np.count_nonzero(fed.model.kv.lengths) == 1
