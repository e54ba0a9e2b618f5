"""Keys of pages stand for all tokens up to the page's end, and for the tenant; and the scheduler's use of them."""

from __future__ import annotations

import pytest
from tests.support.fake_stages import FakePipeline, work

from trireme_coordinator.scheduler import PageKeys, Restored, SamplingParams, Scheduler, SchedulerConfig, Sequence

TOKENS = [1 + i * i % 20 for i in range(100)]
FOUND = Restored(0, 0, 0, 0.0)


def keys(tokens: list[int], tenant: str = "t", secret: bytes = b"s") -> list[bytes]:
    made: list[bytes] = []
    PageKeys(secret).extend(made, tenant, tokens, len(tokens) // 16)
    return made


def test_a_key_depends_on_all_tokens_before() -> None:
    first = keys(TOKENS)
    assert len(first) == len(set(first)) == 6
    assert {len(key) for key in first} == {32}
    changed = keys([*TOKENS[:40], 21, *TOKENS[41:]])
    assert [a == b for a, b in zip(first, changed, strict=True)] == [True, True, False, False, False, False]
    same = keys([5] * 32)
    assert same[0] != same[1]


def test_a_key_depends_on_tenant_and_secret() -> None:
    assert not set(keys(TOKENS)) & set(keys(TOKENS, tenant="u"))
    assert not set(keys(TOKENS)) & set(keys(TOKENS, secret=b"S"))
    with pytest.raises(ValueError, match="need a secret"):
        PageKeys(b"")


def test_keys_grow_page_by_page() -> None:
    made: list[bytes] = []
    for pages in (1, 1, 4, 2, 6):
        PageKeys(b"s").extend(made, "t", TOKENS, pages)
    assert made == keys(TOKENS)


def scheduler(*, slots: int = 4) -> tuple[Scheduler, FakePipeline]:
    config = SchedulerConfig(2, slots, 60, 300, 48, 100)
    return Scheduler(config, PageKeys(b"s")), FakePipeline(config)


def request(tail: int, *, max_tokens: int = 20, tokens: int = 100) -> Sequence:
    return Sequence([*TOKENS[:tokens], tail], SamplingParams(0.0, 0, 1.0, 2 * tail), max_tokens, tenant="t")


def stored(pipeline: FakePipeline, fetch: int) -> None:
    """The store has the pages of TOKENS, and the stages have fetched them."""
    pipeline.store |= {key: TOKENS[: 16 * n] for n, key in enumerate(keys(TOKENS), 1)}
    assert pipeline.fetch(fetch, keys(TOKENS)) == 6


def test_others_go_on_while_one_waits_for_its_pages() -> None:
    s, pipeline = scheduler()
    waits, short = request(1), request(2, tokens=20)
    s.submit(waits)
    s.submit(short)
    work(s, pipeline, 60)
    assert (short.finish is not None, waits.computed, waits.slot is not None) == (True, 0, True)
    (wanted,) = s.wanted()
    assert (wanted.sequence, wanted.first_page, wanted.keys) == (waits, 0, tuple(keys(TOKENS)))
    assert s.wanted() == []
    s.fetched(wanted, 0, 0, FOUND)
    work(s, pipeline, 60)
    assert waits.finish is not None
    assert s.idle()


def test_each_full_page_is_saved_once_with_its_key() -> None:
    s, pipeline = scheduler()
    one = request(1, max_tokens=40)
    s.submit(one)
    s.schedule()
    s.fetched(s.wanted()[0], 0, 0, FOUND)
    work(s, pipeline, 100)
    saves = [save for batch in pipeline.sent for save in batch.save]
    assert [save.first_page for save in saves][:3] == [0, 3, 6]  # by chunks of 48 tokens, then while decoding
    assert [key for save in saves for key in save.keys] == keys(one.tokens)[: (len(one.tokens) - 1) // 16]


def test_restored_pages_are_neither_computed_nor_saved_again_and_can_be_shared() -> None:
    s, pipeline = scheduler()
    one = request(1, max_tokens=150)
    stored(pipeline, 9)
    s.submit(one)
    s.schedule()
    s.fetched(s.wanted()[0], 9, 5, FOUND)
    work(s, pipeline, 20)
    begun = next(row for batch in pipeline.sent for row in batch.rows)
    assert (begun.position, one.cached, one.restored) == (80, 80, FOUND)
    assert next(save for batch in pipeline.sent for save in batch.save).first_page == 5
    second = request(2)
    s.submit(second)
    work(s, pipeline, 3)
    assert second.cached == 96  # shared, with what was computed since


def test_a_sequence_that_left_gets_no_pages() -> None:
    s, pipeline = scheduler()
    for when in ("before the answer", "after the answer"):
        stored(pipeline, 7)
        one = request(1)
        s.submit(one)
        s.schedule()
        (wanted,) = s.wanted()
        if when == "before the answer":
            s.drop(one)
        s.fetched(wanted, 7, 6, FOUND)
        if when == "after the answer":
            s.drop(one)
        assert not s.idle()
        before = len(pipeline.sent)
        work(s, pipeline, 6)
        sent = pipeline.sent[before:]
        assert [batch.forget for batch in sent if batch.forget] == [(7,)]
        assert not any(batch.restore for batch in sent)
        assert s.idle()
        assert s.check_integrity() == ""


def test_a_new_epoch_asks_anew() -> None:
    s, pipeline = scheduler()
    one = request(1)
    s.submit(one)
    s.schedule()
    (old,) = s.wanted()
    s.restart()
    pipeline.restart()
    s.schedule()
    (new,) = s.wanted()
    s.fetched(old, 3, 6, FOUND)
    assert one.computed == 0
    stored(pipeline, 4)
    s.fetched(new, 4, 6, FOUND)
    work(s, pipeline, 60)
    assert one.finish is not None
    assert [r.fetch for batch in pipeline.sent for r in batch.restore] == [4]
