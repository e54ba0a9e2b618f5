"""Two coordinators on the same real stages in one process: one is deposed, and everything goes on at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.coordinator.test_leadership import Memory, MemoryLease
from tests.support.by_hand import answer_by_hand
from tests.support.listeners import Answer
from tests.support.pipeline import GREEDY, KV_TOKENS, SLOTS, LocalPipeline

from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import EPOCHS_A_TERM, LeasedLeadership
from trireme_coordinator.reign import Reign
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.scheduler import Sequence as Request
from trireme_coordinator.service.door import Door
from trireme_proto.errors import CoordinatorLeaving, NotLeading
from trireme_worker.kv_cache import pages_for
from trireme_worker.pack import Pack

PROMPT = [0, 300, 301, 302]
TOKENS = 120


class Stages:
    """Stages that run already; what is asked for them is written down."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def begin(self) -> None:
        self.log.append("begin")

    def disown(self) -> None:
        self.log.append("disown")

    async def end(self) -> None:
        self.log.append("end")


class Coordinator:
    """An engine, a reign and a door."""

    def __init__(self, name: str, local: LocalPipeline, memory: Memory) -> None:
        config = SchedulerConfig(2, SLOTS, pages_for(KV_TOKENS), local.pack.config.context, 256, 64, speculation=True)
        self.local = local
        self.leadership = LeasedLeadership(MemoryLease(memory, name), _quickly)
        self.engine = Engine(config, local.launch, next_epoch=self.leadership.next_epoch)
        self.door, self.stages = Door(), Stages()
        self.reign = Reign(self.leadership, self.stages, self.engine, self.door, _quickly)

    def submit(self) -> Answer:
        answer = Answer()
        self.engine.submit(Request(list(PROMPT), GREEDY, TOKENS, frozenset(), ""), answer)
        return answer


async def _quickly(_seconds: float) -> None:
    await asyncio.sleep(0.005)


@asynccontextmanager
async def coordinators(pack: Pack) -> AsyncIterator[tuple[Memory, Coordinator, Coordinator]]:
    local, memory = LocalPipeline(pack, 2, threads=1, chunk=256, queue=64, speculation=True), Memory()
    both = [Coordinator(name, local, memory) for name in ("one", "two")]
    try:
        for each in both:
            await each.reign.start()
        yield memory, both[0], both[1]
    finally:
        for each in both:
            await each.reign.stop()
        await local.stop()


@pytest.fixture(scope="module")
def undisturbed(pack: Pack) -> list[int]:
    return answer_by_hand(pack, tuple(PROMPT), TOKENS, GREEDY)


async def test_the_second_stands_by(pack: Pack, undisturbed: list[int]) -> None:
    async with coordinators(pack) as (_, one, two):
        assert (one.door.refusal, type(two.door.refusal)) == (None, NotLeading)
        assert (one.stages.log, two.stages.log) == (["begin"], [])
        assert one.engine.epoch == EPOCHS_A_TERM
        assert await one.submit().done() == undisturbed


async def test_a_redis_that_is_away_at_the_start_is_waited_for(pack: Pack, undisturbed: list[int]) -> None:
    async with coordinators(pack) as (memory, one, two):
        await one.reign.stop()
        await two.reign.stop()
        memory.down = True
        await two.reign.start()
        assert type(two.door.refusal) is NotLeading
        memory.down = False
        async with asyncio.timeout(20):
            await two.reign.serving.wait()
        assert await two.submit().done() == undisturbed


async def test_a_deposed_leader_ends_its_answers_and_the_next_one_gives_the_same(
    pack: Pack, undisturbed: list[int]
) -> None:
    async with coordinators(pack) as (memory, one, two):
        answer = one.submit()
        await answer.until(lambda a: len(a.tokens) >= 3)
        memory.held = (memory.highest + 1, "two")  # as if it had expired while `one` was frozen
        memory.highest += 1
        with pytest.raises(NotLeading):
            await answer.done()
        assert answer.tokens == undisturbed[: len(answer.tokens)]
        memory.expire()
        async with asyncio.timeout(20):
            await asyncio.wait(
                [asyncio.ensure_future(each.reign.serving.wait()) for each in (one, two)],
                return_when=asyncio.FIRST_COMPLETED,
            )
        leader, other = (one, two) if one.reign.serving.is_set() else (two, one)
        assert leader.engine.epoch == 3 * EPOCHS_A_TERM
        assert await leader.submit().done() == undisturbed
        assert type(other.door.refusal) is NotLeading


async def test_a_leader_that_is_deposed_while_it_starts_stands_by(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with coordinators(pack) as (memory, one, two):
        await one.reign.stop()
        await two.reign.stop()
        late, beginning = Coordinator("late", one.local, memory), asyncio.Event()

        async def slowly() -> None:
            beginning.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(late.stages, "begin", slowly)
        starting = asyncio.ensure_future(late.reign.start())
        await beginning.wait()
        memory.highest += 1
        memory.held = (memory.highest, "another")
        async with asyncio.timeout(20):
            await starting
        assert (type(late.door.refusal), late.reign.serving.is_set()) == (NotLeading, False)
        assert late.stages.log == ["disown"]
        await late.reign.stop()


async def test_with_a_successor_running_answers_are_left_to_it(pack: Pack, undisturbed: list[int]) -> None:
    async with coordinators(pack) as (_, one, two):
        answer = one.submit()
        await answer.until(lambda a: len(a.tokens) >= 3)
        flushed: list[float] = []

        async def flush(seconds: float) -> None:
            assert one.leadership.leading  # nobody can have read before
            flushed.append(seconds)

        await one.reign.drain(1000, flush)
        with pytest.raises(CoordinatorLeaving):
            await answer.done()
        assert answer.tokens == undisturbed[: len(answer.tokens)]
        assert (len(flushed), one.stages.log) == (1, ["begin", "disown"])
        async with asyncio.timeout(20):
            await two.reign.serving.wait()
        assert await two.submit().done() == undisturbed
        assert two.door.refusal is None


async def test_without_a_successor_running_answers_end_first(pack: Pack, undisturbed: list[int]) -> None:
    async with coordinators(pack) as (memory, one, two):
        await two.reign.stop()
        memory.waiting = ""
        answer = one.submit()

        async def flush(seconds: float) -> None:
            assert seconds > 0

        await one.reign.drain(1000, flush)
        assert await answer.done() == undisturbed
        assert type(one.door.refusal) is CoordinatorLeaving
        assert one.stages.log == ["begin", "end"]


async def test_but_not_for_longer_than_allowed(pack: Pack) -> None:
    async with coordinators(pack) as (memory, one, two):
        await two.reign.stop()
        memory.waiting = ""
        answer = one.submit()
        await answer.until(lambda a: len(a.tokens) >= 1)

        async def flush(_seconds: float) -> None:
            pass

        await one.reign.drain(0, flush)
        with pytest.raises(CoordinatorLeaving):
            await answer.done()
