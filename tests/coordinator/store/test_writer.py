"""Writing behind: order, batches, outages, bounds."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from tests.coordinator.store.backends import MODEL

from trireme_coordinator.store import MemorySessionStore, SessionWriter
from trireme_coordinator.store.records import new_record, utc_now
from trireme_coordinator.store.requests import Birth, Start
from trireme_proto.errors import Internal, LeaseLost, SessionIncomplete, SessionNotFound, SessionStoreUnavailable


class SlowStore(MemorySessionStore):
    """Appends only when the test lets one pass; remembers each."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.appended: list[tuple[str, int, list[int]]] = []
        self.gate = asyncio.Semaphore(0)
        self.entered = asyncio.Event()

    async def append(self, session_id, expected_count, token_ids):
        self.entered.set()
        await self.gate.acquire()
        await super().append(session_id, expected_count, token_ids)
        self.appended.append((session_id, expected_count, list(token_ids)))


@pytest.fixture
def store() -> MemorySessionStore:
    return MemorySessionStore(MODEL)


async def test_what_was_put_is_stored_in_order(backend):
    store = backend.store()
    writer = SessionWriter(store)
    ids = [(await store.create()).session_id for _ in range(3)]
    for position in range(50):
        for number, session_id in enumerate(ids):
            writer.put(session_id, position, [100 * number + position])
        if position % 7 == 0:
            await asyncio.sleep(0)
    for number, session_id in enumerate(ids):
        await writer.flush(session_id)
        assert await store.tokens(session_id) == [100 * number + position for position in range(50)]
    assert (writer.counters.stored_tokens, writer.counters.lost_tokens, writer.backlog_bytes) == (150, 0, 0)
    await writer.close()


async def test_tokens_that_come_in_while_one_write_is_under_way_go_together():
    store = SlowStore()
    writer = SessionWriter(store)
    session_id = (await store.create()).session_id
    writer.put(session_id, 0, [1])
    await store.entered.wait()
    for position in range(1, 100):
        writer.put(session_id, position, [position])
    store.gate.release()
    store.gate.release()
    await writer.flush(session_id)
    assert store.appended == [(session_id, 0, [1]), (session_id, 1, list(range(1, 100)))]
    await writer.close()


async def test_flush_waits_for_what_was_put_before_and_not_for_more():
    store = SlowStore()
    writer = SessionWriter(store)
    session_id = (await store.create()).session_id
    writer.put(session_id, 0, [1])
    await store.entered.wait()
    flushed = asyncio.ensure_future(writer.flush(session_id))
    await asyncio.sleep(0)
    writer.put(session_id, 1, [2])
    assert not flushed.done()
    store.gate.release()
    await flushed
    assert await store.tokens(session_id) == [1]
    store.gate.release()
    await writer.close()
    assert await store.tokens(session_id) == [1, 2]


async def test_flush_of_a_session_with_nothing_to_write_returns_at_once(store):
    writer = SessionWriter(store)
    await writer.flush("nobody")
    await writer.close()


async def test_the_same_tokens_put_again_are_stored_once(store):
    writer = SessionWriter(store)
    session_id = (await store.create()).session_id
    for position, token_ids in [(0, [1, 2, 3]), (1, [2, 3]), (0, [1]), (3, [4]), (2, [3, 4, 5])]:
        writer.put(session_id, position, token_ids)
    await writer.flush(session_id)
    assert await store.tokens(session_id) == [1, 2, 3, 4, 5]
    await writer.close()


async def test_an_outage_is_waited_out_with_growing_pauses(store):
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        store.answers = len(pauses) == 7
        await asyncio.sleep(0)

    writer = SessionWriter(store, first_pause=0.05, longest_pause=1.0, jitter=float, sleep=sleep)
    session_id = (await store.create()).session_id
    store.answers = False
    writer.put(session_id, 0, [1, 2])
    writer.put(session_id, 2, [3])
    await writer.flush(session_id)
    assert await store.tokens(session_id) == [1, 2, 3]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert writer.counters.retries == 7
    pauses.clear()
    store.answers = False
    writer.put(session_id, 3, [4])
    await writer.flush(session_id)
    assert pauses[:2] == [0.05, 0.1]
    await writer.close()


async def test_a_flush_during_an_outage_is_bounded_and_nothing_is_lost(store):
    writer = SessionWriter(store, first_pause=0.001, longest_pause=0.001)
    session_id = (await store.create()).session_id
    store.answers = False
    writer.put(session_id, 0, [1])
    with pytest.raises(SessionStoreUnavailable, match="not stored"):
        await writer.flush(session_id, 0.02)
    store.answers = True
    await writer.flush(session_id)
    assert await store.tokens(session_id) == [1]
    await writer.close()


async def test_a_backlog_beyond_its_bound_costs_the_oldest_session_and_the_store_is_told(store, caplog):
    writer = SessionWriter(store, backlog_bytes=2000, first_pause=0.001, longest_pause=0.001)
    ids = [(await store.create()).session_id for _ in range(3)]
    store.answers = False
    with caplog.at_level(logging.WARNING):
        for session_id in ids:
            writer.put(session_id, 0, list(range(77, 177)))
    assert writer.backlog_bytes <= 2000
    assert (writer.counters.lost_sessions, writer.counters.lost_tokens) == (1, 100)
    writer.put(ids[0], 100, [7])  # would leave a hole
    assert writer.counters.lost_tokens == 101
    with pytest.raises(SessionStoreUnavailable):
        await writer.flush(ids[0], 0.02)
    store.answers = True
    await writer.flush(ids[0])
    assert (await store.get(ids[0])).missing == 101
    with pytest.raises(SessionIncomplete, match="last 101 tokens"):
        await store.tokens(ids[0])
    for session_id in ids[1:]:
        await writer.flush(session_id)
        assert len(await store.tokens(session_id)) == 100
    writer.put(ids[0], 101, [9])  # the request still runs
    await writer.flush(ids[0])
    assert (await store.get(ids[0])).missing == 102
    await store.rewind(ids[0], 0)
    writer.put(ids[0], 0, [8])
    await writer.flush(ids[0])
    assert await store.tokens(ids[0]) == [8]
    assert writer.counters.marked_sessions == 2
    assert "100 tokens" in caplog.text
    assert not any(text in caplog.text for text in [*ids, "77", "176"])
    await writer.close()


async def test_a_bound_that_a_single_session_exceeds_holds_too(store):
    writer = SessionWriter(store, backlog_bytes=600)
    session_id = (await store.create()).session_id
    writer.put(session_id, 0, [1] * 1000)
    assert writer.backlog_bytes == 0
    await writer.flush(session_id)
    assert (await store.get(session_id)).missing == 1000
    await writer.close()


async def test_a_session_given_up_while_it_is_written_leaves_the_books_right():
    store = SlowStore()
    writer = SessionWriter(store, backlog_bytes=2000)
    first, second = [(await store.create()).session_id for _ in range(2)]
    writer.put(first, 0, [1] * 10)
    await store.entered.wait()
    writer.put(first, 10, [2] * 10)
    writer.put(second, 0, [3] * 300)
    assert writer.counters.lost_sessions == 1
    for _ in range(3):
        store.gate.release()
    await writer.flush(second)
    assert writer.backlog_bytes == 0
    await writer.flush(first)
    record = await store.get(first)
    assert (record.token_count, record.missing) == (10, 10)
    await writer.close()


async def test_what_the_store_refuses_for_good_is_told_as_it_was_told(store):
    writer = SessionWriter(store)
    writer.put("nobody", 0, [1])
    with pytest.raises(SessionNotFound):
        await writer.flush("nobody")
    session_id = (await store.create()).session_id
    writer.put(session_id, 5, [1])
    with pytest.raises(Internal):
        await writer.flush(session_id)
    writer.put(session_id, 0, [1])
    await writer.flush(session_id)
    assert await store.tokens(session_id) == [1]
    assert writer.counters.lost_tokens == 2
    await writer.close()


async def test_a_failure_before_anybody_waits_is_kept_for_the_next_flush(store):
    writer = SessionWriter(store)
    writer.put("nobody", 0, [1])
    for _ in range(10):
        await asyncio.sleep(0)
    assert writer.counters.lost_sessions == 1
    with pytest.raises(SessionNotFound):
        await writer.flush("nobody")
    await writer.flush("nobody")
    await writer.close()


async def test_close_stores_what_is_left(store):
    writer = SessionWriter(store)
    ids = [(await store.create()).session_id for _ in range(5)]
    for session_id in ids:
        writer.put(session_id, 0, [4, 5])
    await writer.close()
    assert [await store.tokens(session_id) for session_id in ids] == [[4, 5]] * 5
    writer.put(ids[0], 2, [6])
    assert writer.counters.lost_tokens == 1
    await writer.close()


async def test_close_during_an_outage_is_bounded_and_told(store):
    writer = SessionWriter(store, flush_seconds=0.02, first_pause=0.001, longest_pause=0.001)
    session_id = (await store.create()).session_id
    store.answers = False
    writer.put(session_id, 0, [1, 2])
    with pytest.raises(SessionStoreUnavailable):
        await writer.close()
    assert writer.counters.lost_tokens == 2


async def test_a_fault_in_the_store_leaves_nobody_waiting_and_the_writer_goes_on(store, monkeypatch, caplog):
    writer = SessionWriter(store)
    session_id = (await store.create()).session_id

    async def broken(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", broken)
        writer.put(session_id, 0, [1])
        with pytest.raises(Internal):
            await writer.flush(session_id)
    assert "ZeroDivisionError" in caplog.text
    writer.put(session_id, 0, [1])
    await writer.flush(session_id)
    assert await store.tokens(session_id) == [1]
    await writer.close()


async def test_random_outages_lose_nothing_and_mix_nothing_up(store):
    random_ = random.Random(11)

    async def sleep(_: float) -> None:
        store.answers = random_.random() < 0.5
        await asyncio.sleep(0)

    writer = SessionWriter(store, sleep=sleep)
    expected = {(await store.create()).session_id: [] for _ in range(6)}
    for _ in range(400):
        session_id, held = random_.choice(list(expected.items()))
        back = random_.randrange(min(3, len(held)) + 1)  # a repeat of the last tokens now and then
        token_ids = held[len(held) - back :] + [random_.randrange(4096) for _ in range(random_.randrange(1, 4))]
        writer.put(session_id, len(held) - back, token_ids)
        held += token_ids[back:]
        if random_.random() < 0.1:
            store.answers = False
        await asyncio.sleep(0)
    await writer.close()
    store.answers = True
    assert {session_id: await store.tokens(session_id) for session_id in expected} == expected
    assert writer.counters.retries > 10


async def test_settled_leaves_a_failure_to_be_told_by_flush(store) -> None:
    writer = SessionWriter(store)
    writer.put("nobody", 0, [1, 2, 3])
    assert not await writer.settled("nobody", 1.0)
    with pytest.raises(SessionNotFound):
        await writer.flush("nobody")
    await writer.close()


async def test_settled_does_not_wait_for_a_store_that_is_away(store) -> None:
    failed = asyncio.Event()

    async def sleep(_: float) -> None:
        failed.set()
        await asyncio.Event().wait()

    writer = SessionWriter(store, flush_seconds=0.01, sleep=sleep)
    record = await store.create()
    store.answers = False
    writer.put(record.session_id, 0, [1])
    await failed.wait()
    async with asyncio.timeout(60):
        assert not await writer.settled(record.session_id, 3600)
    assert writer.away
    with pytest.raises(SessionStoreUnavailable):
        await writer.close()


async def test_settled_gives_up_when_the_store_is_found_to_be_away() -> None:
    store, asked, go = SlowStore(), asyncio.Event(), asyncio.Event()

    async def sleep(_: float) -> None:
        await asyncio.Event().wait()

    async def fail(*_: object) -> None:
        asked.set()
        await go.wait()
        raise SessionStoreUnavailable("Away.")

    writer = SessionWriter(store, flush_seconds=0.01, sleep=sleep)
    record = await store.create()
    store.append = fail
    writer.put(record.session_id, 0, [1])
    await asked.wait()
    waiting = asyncio.ensure_future(writer.settled(record.session_id, 3600))
    await asyncio.sleep(0)  # it waits
    go.set()
    async with asyncio.timeout(60):
        assert not await waiting
    with pytest.raises(SessionStoreUnavailable):
        await writer.close()


async def test_a_session_that_could_not_be_made_is_made_with_its_first_tokens(backend) -> None:
    store, other = backend.store(), backend.store()
    record = new_record("f" * 32, MODEL, backend.clock.now, 77)
    writer = SessionWriter(store)
    writer.begin(record.session_id, Birth(record, "one", Start(0, 0)))
    with pytest.raises(SessionNotFound):
        await other.get(record.session_id)
    writer.put(record.session_id, 0, [1, 2], 1)
    writer.put(record.session_id, 2, [3], 1)
    await writer.flush(record.session_id)
    assert await other.tokens(record.session_id) == [1, 2, 3]
    assert (await other.get(record.session_id)).ttl_seconds == 77
    await writer.close()


async def test_a_request_that_began_without_the_store_is_told_once_however_often_it_is_sent(backend) -> None:
    """The answer to the first try was lost, so that it is sent again; then somebody else came."""
    store = backend.store()
    for owner, lost in (("one", False), ("two", True)):
        session_id, writer = (await store.create()).session_id, SessionWriter(store)
        await store.begin(session_id, owner, Start(0, 0))
        writer.begin(session_id, Birth(None, "one", Start(0, 0)))
        writer.put(session_id, 0, [1], 1)
        if lost:
            with pytest.raises(LeaseLost):
                await writer.flush(session_id)
        else:
            await writer.flush(session_id)
        assert await store.tokens(session_id) == [] if lost else [1]
        await writer.close()


async def test_a_session_without_a_token_is_not_made(store) -> None:
    writer = SessionWriter(store)
    writer.begin("f" * 32, Birth(new_record("f" * 32, MODEL, utc_now()), "one", Start(0, 0)))
    writer.end("f" * 32)
    writer.put("f" * 32, 0, [1])
    with pytest.raises(SessionNotFound):
        await writer.flush("f" * 32)
    await writer.close()


async def test_what_is_stored_the_moment_that_settled_gives_up_is_no_failure() -> None:
    """The bound of an answer's end is short; a session must not be taken for lost because both come together."""
    store = SlowStore()
    writer = SessionWriter(store)
    for turns in range(8):
        session_id = (await store.create()).session_id
        store.entered.clear()
        writer.put(session_id, 0, [1])
        await store.entered.wait()
        settled = asyncio.ensure_future(writer.settled(session_id, 0.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        store.gate.release()
        await settled
        await writer.flush(session_id)
        store.gate.release()
        writer.put(session_id, 1, [2])
        await writer.flush(session_id)
        assert await store.tokens(session_id) == [1, 2]
    assert writer.counters.lost_tokens == 0
    await writer.close()
