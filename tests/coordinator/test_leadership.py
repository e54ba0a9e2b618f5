"""Terms of leaders on a lease in memory: who leads, which epochs are whose, what happens while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from trireme_coordinator.leadership import EPOCHS_A_TERM, LeasedLeadership, SoleLeadership
from trireme_proto.errors import NotLeading, SessionStoreUnavailable


class Memory:
    """What Redis would hold."""

    def __init__(self) -> None:
        self.held: tuple[int, str] | None = None
        self.highest = 0
        self.waiting = ""
        self.down = False

    def expire(self) -> None:
        self.held = None


class MemoryLease:
    """As RedisLease."""

    ttl_seconds = 1.5

    def __init__(self, memory: Memory, owner: str) -> None:
        self.owner, self._memory = owner, memory
        self.renewed = 0

    async def take(self, above: int = 0) -> int:
        m = self._redis()
        return 0 if m.held else self._write(max(m.highest, above) + 1)

    async def keep(self, token: int) -> bool:
        m = self._redis()
        self.renewed += 1
        lost = m.held != (token, self.owner) if m.held else m.highest > token
        return not lost and bool(self._write(token))

    async def rise(self, token: int, above: int) -> int:
        m = self._redis()
        return self._write(max(m.highest, above) + 1) if m.held == (token, self.owner) else 0

    async def release(self, token: int) -> None:
        if self._redis().held == (token, self.owner):
            self._memory.held = None

    async def holder(self) -> str:
        m = self._redis()
        return m.held[1] if m.held else ""

    async def stand_by(self) -> None:
        self._redis().waiting = self.owner

    async def somebody_stands_by(self) -> bool:
        return self._redis().waiting not in {"", self.owner}

    def _redis(self) -> Memory:
        if self._memory.down:
            raise SessionStoreUnavailable("Redis does not answer.")
        return self._memory

    def _write(self, token: int) -> int:
        self._memory.held, self._memory.highest = (token, self.owner), token
        return token


class Turns:
    """A sleep that lasts until it is told, and tells how often it was asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._waiters: list[asyncio.Future[None]] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._waiters.append(asyncio.get_running_loop().create_future())
        await self._waiters[-1]

    async def pass_(self, times: int = 1) -> None:
        """Everybody who sleeps wakes up, and does what comes next."""
        for _ in range(times):
            await settle()
            waiters, self._waiters = self._waiters, []
            for each in waiters:
                if not each.done():
                    each.set_result(None)
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def contender(memory: Memory, owner: str):
    turns = Turns()
    made = LeasedLeadership(MemoryLease(memory, owner), turns)
    try:
        yield made, turns
    finally:
        await made.resign()


Do = Callable[[], Awaitable[object]]


async def test_the_first_leads_and_the_second_waits_for_its_end() -> None:
    memory = Memory()
    async with contender(memory, "one/1") as (one, _), contender(memory, "two/2") as (two, turns):
        assert await one.attempt()
        assert not await two.attempt()
        assert await two.leader() == "one"
        winning = asyncio.ensure_future(two.win())
        await turns.pass_(3)
        assert (winning.done(), await one.successor()) == (False, True)
        await one.resign()
        await turns.pass_()
        await winning
        assert (one.leading, two.leading, await one.leader()) == (False, True, "two")


async def test_a_lease_is_renewed_well_before_it_expires() -> None:
    memory = Memory()
    async with contender(memory, "one") as (one, turns):
        await one.attempt()
        await turns.pass_(3)
        assert one.leading
        assert one._lease.renewed == 3
        assert max(turns.asked) <= MemoryLease.ttl_seconds / 3


async def test_each_term_has_epochs_above_all_before() -> None:
    memory = Memory()
    async with contender(memory, "one") as (one, _), contender(memory, "two") as (two, _):
        await one.attempt()
        first = await one.next_epoch(0)
        assert await one.next_epoch(first) == first + 1
        await one.resign()
        await two.attempt()
        assert await two.next_epoch(first + 1) == 2 * EPOCHS_A_TERM
        with pytest.raises(NotLeading):
            await one.next_epoch(first + 1)


async def test_a_leader_that_meets_its_successors_epoch_steps_down() -> None:
    """As one does that was frozen, or cut off from Redis, while another took over."""
    memory = Memory()
    async with contender(memory, "one") as (one, _), contender(memory, "two") as (two, _):
        await one.attempt()
        memory.expire()
        await two.attempt()
        theirs = await two.next_epoch(await one.next_epoch(0))
        for memory.down in (True, False):  # it need not reach Redis to know
            with pytest.raises(NotLeading):
                await one.next_epoch(theirs)
            assert one.lost.is_set()
        assert await two.next_epoch(theirs) == theirs + 1


async def test_while_redis_is_away_the_leader_goes_on_and_nobody_takes_over() -> None:
    memory = Memory()
    async with contender(memory, "one") as (one, turns), contender(memory, "two") as (two, others):
        await one.attempt()
        epoch = await one.next_epoch(0)
        winning = asyncio.ensure_future(two.win())
        memory.down = True
        for _ in range(9):
            await turns.pass_()
            await others.pass_()
        assert one.leading
        assert await one.next_epoch(epoch) == epoch + 1
        memory.down, memory.held, memory.highest = False, None, 0  # Redis is back, and has forgotten everything
        await others.pass_(2)  # those who stand by look first
        await turns.pass_(2)
        await others.pass_(9)
        assert (one.leading, winning.done(), memory.held) == (True, False, (1, "one"))
        winning.cancel()


async def test_a_leader_whose_lease_another_has_steps_down() -> None:
    memory = Memory()
    async with contender(memory, "one") as (one, turns), contender(memory, "two") as (two, _):
        await one.attempt()
        memory.expire()
        assert await two.attempt()
        await turns.pass_()
        assert (one.leading, one.lost.is_set()) == (False, True)
        await one.resign()
        assert two.leading


async def test_a_token_that_redis_forgot_is_raised_above_the_stages() -> None:
    memory = Memory()
    async with contender(memory, "one") as (one, turns):
        await one.attempt()
        seen = 57 * EPOCHS_A_TERM + 3
        assert await one.next_epoch(seen) == 58 * EPOCHS_A_TERM
        await turns.pass_(2)
        assert one.leading  # under its new token


async def test_only_who_is_sure_to_be_alone_is_alone() -> None:
    memory = Memory()
    async with contender(memory, "one") as (one, _), contender(memory, "two") as (two, _):
        assert not await one.alone()
        await one.attempt()
        assert await one.alone()
        memory.down = True
        assert not await one.alone()
        memory.down = False
        await two._lease.stand_by()
        assert not await one.alone()


async def test_who_was_frozen_asks_before_it_ends_workers() -> None:
    """Not who merely finds Redis down: nobody can have taken the lease then."""
    memory = Memory()
    async with contender(memory, "one") as (one, _), contender(memory, "two") as (two, _):
        await one.attempt()
        assert await one.confirmed()
        memory.down = True
        assert await one.confirmed()
        memory.down = False
        memory.expire()
        await two.attempt()
        assert not await one.confirmed()
        assert (one.leading, one.lost.is_set()) == (False, True)
        assert await two.confirmed()


async def test_a_sole_coordinator_always_leads() -> None:
    sole = SoleLeadership()
    await sole.win()
    assert (sole.leading, await sole.attempt(), await sole.alone(), await sole.successor()) == (True, True, True, False)
    assert await sole.next_epoch(4) == 5
