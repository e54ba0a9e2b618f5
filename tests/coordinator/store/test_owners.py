"""Whose sessions are renewed, and who is told that one is lost."""

from __future__ import annotations

import asyncio

import pytest
from tests.coordinator.store.backends import MODEL

from trireme_coordinator.store import MemoryRequestStore, Owner, Start


class Sleeps:
    """Lets the renewals come one at a time."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.wake = asyncio.Semaphore(0)
        self.asleep = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.asleep.set()
        await self.wake.acquire()
        self.asleep.clear()


@pytest.fixture
def store() -> MemoryRequestStore:
    return MemoryRequestStore(MODEL)


async def begun(store: MemoryRequestStore, owner: str, fence: int = 0, session_id: str = "") -> str:
    session_id = session_id or (await store.create()).session_id
    await store.begin(session_id, owner, Start(fence, 0, [1]))
    return session_id


async def test_a_lost_session_is_told_of_once(store):
    lost = []
    owner = Owner(store, "one")
    mine, theirs = await begun(store, "one"), await begun(store, "one")
    for session_id in (mine, theirs):
        owner.keep(session_id, lambda session_id=session_id: lost.append(session_id))
    await begun(store, "two", 1, theirs)
    for _ in range(2):
        await owner.renew()
    assert lost == [theirs]
    await owner.close()


async def test_who_has_left_is_not_renewed_and_not_told(store):
    lost = []
    owner = Owner(store, "one")
    session_id = await begun(store, "one")
    owner.keep(session_id, lambda: lost.append(session_id))
    owner.leave(session_id)
    owner.leave(session_id)
    await begun(store, "two", 1, session_id)
    await owner.renew()
    assert lost == []
    await owner.close()


async def test_a_store_that_is_down_takes_no_session_away(store):
    lost, sleeps = [], Sleeps()
    owner = Owner(store, "one", sleep=sleeps)
    session_id = await begun(store, "one")
    owner.keep(session_id, lambda: lost.append(session_id))
    store.answers = False
    for answers in (False, True):
        await sleeps.asleep.wait()
        store.answers = answers
        sleeps.asleep.clear()
        sleeps.wake.release()
        await sleeps.asleep.wait()
        assert lost == []
    await begun(store, "two", 1, session_id)
    sleeps.asleep.clear()
    sleeps.wake.release()
    await sleeps.asleep.wait()
    assert lost == [session_id]
    assert set(sleeps.asked) == {1.0}
    await owner.close()


async def test_names_differ(store):
    assert len({Owner(store).name for _ in range(5)}) == 5
