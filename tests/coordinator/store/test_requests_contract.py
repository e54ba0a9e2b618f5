"""What every store must do for requests and owners: the same tests on the one in memory and on a real Valkey server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.coordinator.store.backends import MODEL, OTHER_PACK

from trireme_coordinator.store import End, RequestRecord, SessionWriter, Start
from trireme_coordinator.store.records import new_record
from trireme_coordinator.store.requests import CUT, OPEN, Birth, from_bytes, kept, start_of, to_bytes
from trireme_proto.errors import Internal, InvalidRequest, LeaseLost, SessionBusy, SessionNotFound
from trireme_proto.limits import LIMITS


def record(request_id: str = "r", start: int = 0, answer: int = 3, **more) -> RequestRecord:
    return RequestRecord(request_id, "c" * 64, start, answer, 2**64 - 1, **more)


async def begun(store, owner: str = "one"):
    """(session id, fencing number) of a session with a prompt of three tokens."""
    session_id = (await store.create()).session_id
    return session_id, await store.begin(session_id, owner, Start(0, 0, [1, 2, 3], [record()]))


async def test_a_session_without_requests(backend):
    store = backend.store()
    made = await store.create(60)
    loaded = await store.load(made.session_id)
    assert (loaded.record, loaded.tokens, loaded.requests, loaded.fence, loaded.owner) == (made, [], {}, 0, "")


async def test_prompt_record_number_and_owner_come_together(backend):
    store = backend.store()
    session_id, fence = await begun(store)
    loaded = await backend.store().load(session_id)
    assert (loaded.tokens, loaded.requests) == ([1, 2, 3], {"r": record()})
    assert (loaded.fence, fence, loaded.owner) == (1, 1, "one")
    assert await store.tokens(session_id) == [1, 2, 3]


async def test_the_end_comes_with_the_last_tokens(backend):
    store = backend.store()
    session_id, fence = await begun(store)
    await store.commit(session_id, fence, 3, [4, 5])
    assert (await store.load(session_id)).requests["r"].state == OPEN
    whole = record(state="eos", answer_tokens=3, cached_tokens=2)
    await store.commit(session_id, fence, 5, [6], End(whole))
    loaded = await store.load(session_id)
    assert (loaded.tokens, loaded.requests, loaded.owner) == ([1, 2, 3, 4, 5, 6], {"r": whole}, "")
    assert loaded.fence == 1


async def test_an_end_without_a_record_lets_others_in(backend):
    store = backend.store()
    session_id, fence = await begun(store)
    await store.commit(session_id, fence, 3, [], End())
    loaded = await store.load(session_id)
    assert (loaded.requests, loaded.owner) == ({"r": record()}, "")


async def test_an_older_number_writes_nothing(backend):
    store = backend.store()
    session_id, old = await begun(store)
    new = await store.begin(session_id, "two", Start(old, 3))
    assert new == old + 1
    for end in (None, End(), End(record(state="eos"))):
        with pytest.raises(LeaseLost):
            await store.commit(session_id, old, 3, [4], end)
    loaded = await store.load(session_id)
    assert (loaded.tokens, loaded.requests, loaded.owner) == ([1, 2, 3], {"r": record()}, "two")
    await store.commit(session_id, new, 3, [5])
    assert await store.tokens(session_id) == [1, 2, 3, 5]


async def test_of_several_who_begin_at_once_one_does(backend):
    store = backend.store()
    for _ in range(20):
        session_id = (await store.create()).session_id
        starts = [store.begin(session_id, str(i), Start(0, 0, [i], [record(str(i))])) for i in range(4)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        won = [i for i, outcome in enumerate(outcomes) if outcome == 1]
        assert len(won) == 1
        assert sum(isinstance(outcome, SessionBusy) for outcome in outcomes) == 3
        loaded = await store.load(session_id)
        assert (loaded.tokens, list(loaded.requests), loaded.owner) == (won, [str(won[0])], str(won[0]))


@pytest.mark.parametrize("keep", [0, 2, 3])
async def test_tokens_can_be_taken_back_when_a_request_begins(backend, keep):
    store = backend.store()
    session_id, fence = await begun(store)
    await store.begin(session_id, "one", Start(fence, keep, [7, 8], [record("s", keep, keep + 2)]))
    assert await store.tokens(session_id) == [*[1, 2, 3][:keep], 7, 8]
    assert (await store.get(session_id)).token_count == keep + 2


async def test_a_commit_that_is_sent_again_changes_nothing_and_one_that_contradicts_is_refused(backend):
    store = backend.store()
    session_id, fence = await begun(store)
    await store.commit(session_id, fence, 3, [4, 5])
    await store.commit(session_id, fence, 3, [4, 5])
    await store.commit(session_id, fence, 4, [5, 6])
    for position, tokens in ((4, [9]), (9, [9]), (6, [4096])):
        with pytest.raises(Internal):
            await store.commit(session_id, fence, position, tokens)
    assert await store.tokens(session_id) == [1, 2, 3, 4, 5, 6]


async def test_a_lease_lapses_unless_it_is_renewed(backend):
    store = backend.store()
    session_id, fence = await begun(store)
    assert await store.renew("one", [session_id]) == set()
    assert await store.renew("two", [session_id]) == {session_id}
    assert (await store.load(session_id)).owner == "one"
    await backend.lapse(session_id)
    assert (await store.load(session_id)).owner == ""
    await store.commit(session_id, fence, 3, [4])  # nobody else came
    assert await store.renew("one", [session_id]) == set()
    assert (await store.load(session_id)).owner == "one"
    assert await store.renew("one", []) == set()


async def test_a_request_id_names_one_session(backend):
    store = backend.store()
    names = [f"{i:032}" for i in range(3)]
    assert [await store.name(name, f"session-{i}") for i, name in enumerate(names)] == [
        f"session-{i}" for i in range(3)
    ]
    assert await backend.store().name(names[1], "another") == "session-1"


async def test_a_session_is_made_once(backend):
    store = backend.store()
    await store.ensure(new_record("chosen", MODEL, backend.clock.now, 60))
    made = await store.get("chosen")
    assert (made.token_count, made.ttl_seconds) == (0, 60)
    await store.begin("chosen", "one", Start(0, 0, [1], [record(answer=1)]))
    await store.ensure(new_record("chosen", MODEL, backend.clock.now, 600))
    loaded = await store.load("chosen")
    assert (loaded.tokens, loaded.record.ttl_seconds, loaded.fence) == ([1], 60, 1)
    assert [listed.session_id for listed in (await store.list(10))[0]] == ["chosen"]


async def test_what_is_gone_is_gone(backend):
    store = backend.store()
    deleted, expired = (await begun(store))[0], (await begun(store))[0]
    await store.delete(deleted)
    await backend.expire(expired)
    for session_id in (deleted, expired, "nobody", "a}:requests"):
        for call in (
            store.load(session_id),
            store.begin(session_id, "one", Start(1, 3)),
            store.commit(session_id, 1, 3, [4]),
        ):
            with pytest.raises(SessionNotFound):
                await call
    await store.ensure(new_record(deleted, MODEL, backend.clock.now))
    assert (await store.load(deleted)).requests == {}


async def test_a_session_of_another_pack(backend):
    session_id, fence = await begun(backend.store())
    other = backend.store(OTHER_PACK)
    for call in (other.load(session_id), other.commit(session_id, fence, 3, [4])):
        with pytest.raises(InvalidRequest, match="another model"):
            await call


async def test_a_new_request_cuts_off_the_open_one_and_old_ones_are_forgotten(backend):
    store = backend.store()
    session_id = (await store.create()).session_id
    for number in range(LIMITS.session_requests + 5):
        loaded = await store.load(session_id)
        count = len(loaded.tokens)
        assert kept(loaded) == count
        new = record(f"r{number}", count, count + 2)
        fence = await store.begin(session_id, "one", start_of(loaded, new, [1, 2]))
        end = End(replace(new, state="stop", answer_tokens=1)) if number % 2 else End()
        await store.commit(session_id, fence, count + 2, [3], end)
    found = (await store.load(session_id)).requests
    assert sorted(found) == sorted(f"r{number}" for number in range(5, LIMITS.session_requests + 5))
    states = {name: (r.state, r.answer_tokens) for name, r in found.items()}
    assert states.pop("r20") == (OPEN, 0)
    assert states == {name: ("stop", 1) if int(name[1:]) % 2 else (CUT, 1) for name in states}


async def test_a_prompt_that_never_got_an_answer_is_taken_back(backend):
    store = backend.store()
    session_id, _ = await begun(store)
    loaded = await store.load(session_id)
    assert kept(loaded) == 0
    start = start_of(loaded, record("s", 0, 1), [9])
    assert (start.keep, start.seen) == (0, 1)
    await store.begin(session_id, "one", start)
    loaded = await store.load(session_id)
    assert loaded.tokens == [9]
    assert loaded.requests["r"] == record(state=CUT)


async def test_a_rewound_session_has_no_request_beyond(backend):
    store = backend.store()
    session_id, fence = await begun(store)
    await store.commit(session_id, fence, 3, [4, 5, 6], End(record(state="eos", answer_tokens=3)))
    later = record("s", 6, 8)
    fence = await store.begin(session_id, "one", Start(fence, 6, [7, 8], [later]))
    await store.commit(session_id, fence, 8, [9])
    await store.rewind(session_id, 7)
    loaded = await store.load(session_id)
    assert {name: r.state for name, r in loaded.requests.items()} == {"r": "eos", "s": CUT}
    with pytest.raises(LeaseLost):  # nor can who was generating go on
        await store.commit(session_id, fence, 7, [8])
    await store.rewind(session_id, 5)
    assert (await store.load(session_id)).requests["r"].state == CUT


async def test_the_writer_stores_ends_and_tells_of_a_lost_lease(backend):
    store = backend.store()
    writer, lost = SessionWriter(store), []
    writer.on_lease_lost = lost.append
    session_id, fence = await begun(store)
    for position in range(3, 8):
        writer.put(session_id, position, [position], fence)
    done = record(state="length", answer_tokens=5)
    writer.put(session_id, 8, [], fence, End(done))
    await writer.flush(session_id)
    loaded = await store.load(session_id)
    assert (loaded.tokens, loaded.requests["r"], loaded.owner) == ([1, 2, 3, 3, 4, 5, 6, 7], done, "")
    await store.begin(session_id, "two", Start(fence, 8))
    writer.put(session_id, 8, [], fence, End(done))  # an end alone is waited for as well
    with pytest.raises(LeaseLost):
        await writer.flush(session_id)
    assert lost == [session_id]
    assert (writer.backlog_bytes, writer.counters.lost_tokens) == (0, 0)
    await writer.close()


@pytest.mark.parametrize(
    "found",
    [record(), record(state="eos", answer_tokens=0), replace(record(), seed=7), None],
    ids=["the same", "ended", "another seed", "none"],
)
async def test_a_begin_whose_answer_was_lost_stands_when_the_lease_has_lapsed_unless_it_was_anothers(backend, found):
    """The store was away for longer than a lease lasts: nobody is named any more, and the records tell."""
    store, writer = backend.store(), SessionWriter(backend.store())
    session_id = (await store.create()).session_id
    await store.begin(session_id, "one", Start(0, 0, [1, 2, 3], [found] if found else []))
    await backend.lapse(session_id)
    writer.begin(session_id, Birth(None, "one", Start(0, 0, put=[record()])))
    writer.put(session_id, 0, [1, 2, 3, 4], 1)
    writer.put(session_id, 4, [5], 1, End(record(state="length", answer_tokens=2)))
    if found == record():
        await writer.flush(session_id)
        assert (await store.load(session_id)).tokens == [1, 2, 3, 4, 5]
    else:
        with pytest.raises(LeaseLost):
            await writer.flush(session_id)
        assert (await store.load(session_id)).tokens == [1, 2, 3]
    await writer.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        to_bytes(record()) + b" ",
        to_bytes(record()).replace(b"open", b"gone"),
        to_bytes(record()).replace(b"c", b"g"),
        to_bytes(record(start=4)),
        to_bytes(record()).replace(str(2**64 - 1).encode(), str(2**64).encode()),
    ],
    ids=str,
)
def test_bytes_that_are_no_record(raw):
    assert from_bytes(b"r", to_bytes(record())) == record()
    with pytest.raises(Internal, match="damaged"):
        from_bytes(b"r", raw)


async def test_a_damaged_hash_of_requests(on_redis):
    store = on_redis.store()
    for damage in ({"r": "nonsense"}, {"#fence": "-1"}, {"#fence": "x"}):
        session_id, fence = await begun(store)
        await on_redis.raw.hset(f"trireme:1:session:{{{session_id}}}:requests", mapping=damage)
        with pytest.raises(Internal, match="damaged"):
            await store.load(session_id)
        if "#fence" in damage:
            with pytest.raises(Internal, match="damaged"):
                await store.commit(session_id, fence, 3, [4])
