"""What every session store must do: the same tests on the one in memory and on a real Valkey server."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest
from tests.coordinator.store.backends import MODEL, OTHER_PACK

from trireme_coordinator.store.records import new_record
from trireme_proto.errors import Internal, InvalidRequest, SessionIncomplete, SessionNotFound, WrongModel
from trireme_proto.limits import LIMITS


async def test_a_new_session_is_empty(backend):
    store = backend.store()
    record = await store.create(60)
    assert await store.get(record.session_id) == record
    assert (record.token_count, record.ttl_seconds, record.model, record.pack_sha256) == (0, 60, "tiny", "a" * 64)
    assert (record.created, record.last_used) == (backend.clock.now, backend.clock.now)
    assert record.expires == backend.clock.now + timedelta(seconds=60)
    assert await store.tokens(record.session_id) == []


async def test_the_default_time_to_live_is_a_day(backend):
    assert (await backend.store().create()).ttl_seconds == 86400


async def test_ids_are_128_random_bits(backend):
    store = backend.store()
    ids = {(await store.create()).session_id for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", session_id) for session_id in ids)


@pytest.mark.parametrize("seconds", [0, -1, LIMITS.session_ttl_seconds + 1])
async def test_a_time_to_live_out_of_range_is_refused(backend, seconds):
    with pytest.raises(InvalidRequest, match="ttl_seconds"):
        await backend.store().create(seconds)


async def test_tokens_come_back_in_order(backend):
    store = backend.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [0, 1, 4095])
    await store.append(session_id, 3, [7])
    assert await store.tokens(session_id) == [0, 1, 4095, 7]
    assert (await store.get(session_id)).token_count == 4


async def test_an_append_that_is_sent_again_changes_nothing(backend):
    store = backend.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1, 2, 3, 4])
    await store.append(session_id, 0, [1, 2, 3, 4])
    await store.append(session_id, 1, [2, 3])
    await store.append(session_id, 2, [3, 4, 5, 6])
    await store.append(session_id, 6, [])
    assert await store.tokens(session_id) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("position", "token_ids"),
    [(0, [9]), (1, [2, 9]), (2, [9, 4]), (4, [5]), (-1, [1]), (3, [4096]), (3, [-1])],
    ids=["first differs", "last differs", "overlap differs", "gap", "before the start", "vocabulary", "negative"],
)
async def test_an_append_that_contradicts_is_refused_and_changes_nothing(backend, position, token_ids):
    store = backend.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1, 2, 3])
    with pytest.raises(Internal):
        await store.append(session_id, position, token_ids)
    assert await store.tokens(session_id) == [1, 2, 3]


async def test_appends_at_the_same_time_agree(backend):
    store = backend.store()
    for _ in range(40):
        session_id = (await store.create()).session_id
        await asyncio.gather(*(store.append(session_id, 0, [1, 2, 3]) for _ in range(4)))
        assert await store.tokens(session_id) == [1, 2, 3]
        rivals = [store.append(session_id, 3, [rival]) for rival in range(10, 14)]
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 1
        assert {str(outcome) for outcome in outcomes if outcome} == {
            "A session already holds other tokens at this position."
        }
        assert len(await store.tokens(session_id)) == 4


async def test_use_keeps_a_session_alive(backend):
    store = backend.store()
    session_id = (await store.create(100)).session_id
    backend.clock.advance(60)
    await store.append(session_id, 0, [1])
    record = await store.get(session_id)
    assert record.last_used == backend.clock.now
    assert record.expires == backend.clock.now + timedelta(seconds=100)
    assert record.created == backend.clock.now - timedelta(seconds=60)


async def test_a_session_that_expired_is_gone(backend):
    store = backend.store()
    gone, kept = (await store.create(50)).session_id, (await store.create(5000)).session_id
    await store.append(gone, 0, [1])
    await backend.expire(gone)
    assert [record.session_id for record in (await store.list(10))[0]] == [kept]
    for call in (store.get(gone), store.tokens(gone), store.append(gone, 1, [2]), store.delete(gone)):
        with pytest.raises(SessionNotFound):
            await call


async def test_a_deleted_session_is_gone(backend):
    store = backend.store()
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1])
    await store.delete(session_id)
    with pytest.raises(SessionNotFound):
        await store.tokens(session_id)
    with pytest.raises(SessionNotFound):
        await store.delete(session_id)
    assert await store.list(10) == ([], "")


@pytest.mark.parametrize(
    "session_id",
    ["", "nobody", "a}:tokens", "*", "../x", "a\0b", "\N{GREEK SMALL LETTER ALPHA}", "a" * 129, "a\n", "a b"],
)
async def test_an_id_that_never_was_is_not_found(backend, session_id):
    store = backend.store()
    await store.append((await store.create()).session_id, 0, [1])
    for call in (store.get(session_id), store.tokens(session_id), store.append(session_id, 0, [1])):
        with pytest.raises(SessionNotFound):
            await call
    with pytest.raises(SessionNotFound):
        await store.delete(session_id)


async def test_a_session_of_another_pack_cannot_be_continued(backend):
    store, other = backend.store(MODEL), backend.store(OTHER_PACK)
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1])
    for call in (other.tokens(session_id), other.append(session_id, 1, [2])):
        with pytest.raises(WrongModel, match="another model"):
            await call
    assert (await other.get(session_id)).pack_sha256 == MODEL.pack_sha256
    assert await store.tokens(session_id) == [1]
    await other.delete(session_id)


async def test_a_list_begins_with_the_most_recently_used(backend):
    store = backend.store()
    made = []
    for _ in range(4):
        backend.clock.advance(1)
        made.append((await store.create()).session_id)
    backend.clock.advance(1)
    await store.append(made[1], 0, [1])
    records, token = await store.list(10)
    assert [record.session_id for record in records] == [made[1], made[3], made[2], made[0]]
    assert records[0].token_count == 1
    assert token == ""


@pytest.mark.parametrize("seconds_between", [0, 1], ids=["all at the same time", "one after another"])
async def test_pages_make_the_whole_list(backend, seconds_between):
    store = backend.store()
    made = set()
    for _ in range(7):
        backend.clock.advance(seconds_between)
        made.add((await store.create()).session_id)
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        records, token = await store.list(3, token)
        listed += [record.session_id for record in records]
        pages += 1
    assert (len(listed), set(listed), pages) == (7, made, 3)
    assert listed == [record.session_id for record in (await store.list(7))[0]]


async def test_a_list_leaves_out_what_expired_and_pages_stay_full(backend):
    store = backend.store()
    kept = [(await store.create(5000)).session_id for _ in range(2)]
    gone = [(await store.create(50)).session_id for _ in range(4)]
    kept += [(await store.create(5000)).session_id for _ in range(2)]
    for session_id in gone:
        try:
            await backend.expire(session_id)
        except SessionNotFound:
            continue  # went with the one before
    records, token = await store.list(4)
    assert {record.session_id for record in records} == set(kept)
    assert token == ""


@pytest.mark.parametrize("size", [0, -1, LIMITS.page_size + 1])
async def test_a_page_size_out_of_range_is_refused(backend, size):
    with pytest.raises(InvalidRequest, match="page_size"):
        await backend.store().list(size)


@pytest.mark.parametrize("token", ["x", "!!!!", "MTIz", "OmFi", "LTE6YQ==", "\N{SNOWMAN}", "gASVIA==", "MTox/w=="])
async def test_a_page_token_of_nobody_is_refused(backend, token):
    with pytest.raises(InvalidRequest, match="page_token"):
        await backend.store().list(10, token)


async def test_ping(backend):
    assert await backend.store().ping() is True


async def test_another_store_sees_the_same_sessions(backend):
    session_id = (await backend.store().create()).session_id
    await backend.store().append(session_id, 0, [5])
    assert await backend.store().tokens(session_id) == [5]


async def test_a_session_may_be_made_with_tokens_and_an_age(backend):
    store = backend.store()
    earlier = backend.clock.now - timedelta(days=3)
    record = await store.create(60, [1, 2, 3], earlier)
    assert await store.get(record.session_id) == record
    assert (record.created, record.last_used, record.token_count) == (earlier, backend.clock.now, 3)
    await store.append(record.session_id, 3, [4])
    assert await store.tokens(record.session_id) == [1, 2, 3, 4]
    later = await store.create(created=backend.clock.now + timedelta(days=3))
    assert later.created == backend.clock.now


@pytest.mark.parametrize("token_ids", [[4096], [-1]])
async def test_a_session_is_not_made_with_tokens_that_there_are_not(backend, token_ids):
    with pytest.raises(Internal):
        await backend.store().create(60, token_ids)
    assert await backend.store().list(10) == ([], "")


async def test_a_session_is_made_once_under_an_id_given(backend):
    store, record = backend.store(), new_record("e" * 32, MODEL, backend.clock.now, 60)
    await store.ensure(record)
    assert await store.get(record.session_id) == record
    await store.append(record.session_id, 0, [1, 2])
    await store.ensure(record)
    assert await store.tokens(record.session_id) == [1, 2]


@pytest.mark.parametrize("at", [0, 1, 3, 4])
async def test_a_session_is_rewound_and_goes_on_from_there(backend, at):
    store = backend.store()
    session_id = (await store.create(100)).session_id
    await store.append(session_id, 0, [1, 2, 3, 4])
    backend.clock.advance(60)
    record = await store.rewind(session_id, at)
    assert record == await store.get(session_id)
    assert (record.token_count, record.last_used) == (at, backend.clock.now)
    await store.append(session_id, at, [7, 8])
    assert await store.tokens(session_id) == [*[1, 2, 3, 4][:at], 7, 8]


@pytest.mark.parametrize("at", [-1, 5])
async def test_a_session_is_not_rewound_beyond_its_ends(backend, at):
    store = backend.store()
    session_id = (await store.create(100, [1, 2, 3, 4])).session_id
    with pytest.raises(InvalidRequest, match=rf"^at is {at}; the session has 4 tokens\.$"):
        await store.rewind(session_id, at)
    assert await store.tokens(session_id) == [1, 2, 3, 4]
    with pytest.raises(WrongModel):
        await backend.store(OTHER_PACK).rewind(session_id, 0)
    with pytest.raises(SessionNotFound):
        await store.rewind("nobody", 0)


async def test_an_incomplete_session_says_so_until_it_is_rewound(backend):
    store = backend.store()
    session_id = (await store.create(100, [1, 2, 3])).session_id
    await store.mark_incomplete(session_id, 3)
    assert (await store.get(session_id)).missing == 0
    for end in (5, 9, 4):  # told again, by whomever: the most that was ever there
        await store.mark_incomplete(session_id, end)
    assert (await store.get(session_id)).missing == 6
    for call in (store.tokens(session_id), store.append(session_id, 3, [4])):
        with pytest.raises(SessionIncomplete, match=r"last 6 tokens .* rewind it to 3 tokens"):
            await call
    assert await store.tokens(session_id, whole=False) == [1, 2, 3]
    assert (await store.rewind(session_id, 3)).missing == 0
    await store.append(session_id, 3, [4])
    assert await store.tokens(session_id) == [1, 2, 3, 4]
    with pytest.raises(SessionNotFound):
        await store.mark_incomplete("nobody", 1)
