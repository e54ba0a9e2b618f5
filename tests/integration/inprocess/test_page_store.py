"""KV pages that come back from Redis are those that computing would make: no token changes, whatever happens."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
from redis import Redis
from tests.support.by_hand import answer_by_hand
from tests.support.listeners import Answer
from tests.support.pipeline import GREEDY, LocalPipeline, local_pipeline, sampled
from tests.support.waiting import eventually

from trireme_coordinator import page_fetching
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.page_fetching import quicker
from trireme_coordinator.page_store import embedded_page_store
from trireme_coordinator.scheduler import SamplingParams
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.pack import Pack
from trireme_worker.page_redis import COMMANDS, PREFIX, StoreSettings

PROMPT = [0, *range(300, 399)]
"""100 tokens: six full pages, and the last token is not on the last of them."""
ANSWER = 30
USUAL = page_fetching._FIND_SECONDS


@functools.cache
def expected(pack: Pack, tokens: tuple[int, ...], how: SamplingParams, kv_dtype: str = "float32") -> list[int]:
    """The `ANSWER` tokens that follow, computed without any pages."""
    return answer_by_hand(pack, tokens, ANSWER, how, kv_dtype)


def always(found: Sequence[pb.FindPagesResponse], pages: int, token_ns: float) -> float:
    """Fetch, however long computing would take."""
    return 60.0


def never(found: Sequence[pb.FindPagesResponse], pages: int, token_ns: float) -> float:
    return 0.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a stage may need long to say what there is; then pages would be computed again."""
    monkeypatch.setattr(page_fetching, "_FIND_SECONDS", 30.0)


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with embedded_page_store(100_000_000) as server:
        yield server


@pytest.fixture
def store(server: EmbeddedRedis) -> StoreSettings:
    return StoreSettings(server.url, 100_000_000, 3600)


async def stored(local: LocalPipeline) -> None:
    """Returns when all pages that have been handed over are in Redis."""
    for stage in local.stages:
        assert stage.pages is not None
        assert await asyncio.to_thread(stage.pages.writer.flush, 60)
        assert stage.pages.counters.skipped == stage.pages.counters.failures == 0


@asynccontextmanager
async def two_turns(
    pack: Pack, stages: int, store: StoreSettings, *, kv_dtype: str = "float32", how: SamplingParams = GREEDY
) -> AsyncIterator[tuple[LocalPipeline, list[int], Answer]]:
    """A session of a first request, which nobody holds any more, and its next one, which is under way."""
    async with local_pipeline(pack, stages, kv_dtype=kv_dtype, store=store, choose=always) as local:
        first = await local.submit(PROMPT, ANSWER, how, session="s").done()
        await stored(local)
        local.engine.forget("s")
        second = [*PROMPT, *first, 400, 401]
        yield local, second, local.submit(second, ANSWER, how, session="s")


@pytest.mark.parametrize(
    ("stages", "kv_dtype", "how"), [*itertools.product((1, 2, 3), ("float32", "float16", "int8"), (GREEDY, sampled(7)))]
)
async def test_same_tokens(pack: Pack, store: StoreSettings, stages: int, kv_dtype: str, how: SamplingParams) -> None:
    async with two_turns(pack, stages, store, kv_dtype=kv_dtype, how=how) as (local, tokens, answer):
        assert await answer.done() == expected(pack, tuple(tokens), how, kv_dtype)
        request = local.request(answer)
        assert request.restored is not None
        assert request.cached == 128  # 132 tokens: the last full page
        assert (request.restored.found, request.restored.pages) == (8, 8)
        assert request.restored.bytes == sum(8 * s.model.kv.page_bytes for s in local.stages)
        assert answer.prefilled == 4
        assert all(stage.pages and stage.pages.reader.fetched_bytes == 0 for stage in local.stages)
        local.engine.forget("s")
        await local.emptied()


async def test_the_bytes_are_the_same(pack: Pack, store: StoreSettings) -> None:
    """Not only the tokens: a page that is restored, against the same page computed in chunks of another size."""
    async with two_turns(pack, 2, store) as (local, tokens, answer):
        await answer.done()
        restored = [pages_of(stage.model.kv, 0, 8) for stage in local.stages]
    async with local_pipeline(pack, 2, chunk=7) as plain:
        await plain.submit(tokens, 1, session="s").done()
        assert [pages_of(stage.model.kv, 0, 8) for stage in plain.stages] == restored


def pages_of(kv: object, slot: int, pages: int) -> list[bytes]:
    return [b"".join(m[page].tobytes() for m in kv.memory) for page in kv.table[slot, :pages]]  # type: ignore[attr-defined]


async def test_every_page_is_written_once(pack: Pack, store: StoreSettings) -> None:
    async with two_turns(pack, 2, store) as (local, tokens, answer):
        await answer.done()
        await stored(local)
        full = (len(tokens) + ANSWER - 1) // 16  # the last token's keys and values are never computed
        for stage in local.stages:
            assert stage.pages is not None
            assert (stage.pages.counters.written, stage.pages.counters.known) == (full, 0)
        with Redis.from_url(store.url, driver_info=None) as client:
            assert len(client.hgetall(PREFIX + "stages")) == 2


async def test_another_prompt_of_the_tenant_restores_the_common_part_and_another_tenant_nothing(
    pack: Pack, store: StoreSettings
) -> None:
    async with local_pipeline(pack, 2, store=store, choose=always) as local:
        await local.submit(PROMPT, 2, session="s").done()
        await stored(local)
        local.engine.forget("s")
        prompt = [*PROMPT[:70], *range(500, 530)]
        other, stranger = local.submit(prompt, ANSWER), local.submit(PROMPT, ANSWER, tenant="another")
        assert await other.done() == answer_by_hand(pack, prompt, ANSWER, GREEDY)
        await stranger.done()
        assert [local.request(answer).cached for answer in (other, stranger)] == [64, 0]


async def test_pages_that_are_slower_than_computing_are_computed(pack: Pack, store: StoreSettings) -> None:
    async with local_pipeline(pack, 2, store=store, choose=never) as local:
        first = await local.submit(PROMPT, 4, session="s").done()
        await stored(local)
        local.engine.forget("s")
        answer = local.submit(PROMPT, 4)
        assert await answer.done() == first
        restored = local.request(answer).restored
        assert restored is not None
        assert (restored.found, restored.pages, local.request(answer).cached) == (6, 0, 0)
        assert all(stage.pages and stage.pages.counters.fetched == 0 for stage in local.stages)


async def test_a_new_epoch_restores_what_runs(pack: Pack, store: StoreSettings) -> None:
    """One stage is lost in mid-answer; the sequences start over from the pages of both."""
    right = answer_by_hand(pack, PROMPT, 60, sampled(3))
    async with local_pipeline(pack, 2, store=store, choose=always) as local:
        answer = local.submit(PROMPT, 60, sampled(3))
        await answer.until(lambda a: len(a.tokens) >= 20)
        await stored(local)
        await local.stages[1].cut()
        assert await answer.done() == right
        request = local.request(answer)
        assert request.restored is not None
        assert request.restored.pages >= 7
        assert request.cached == 0  # when it was first admitted, nothing was there
        await local.emptied()


@pytest.mark.parametrize("damage", ["cut", "flipped", "another's", "gone"])
async def test_damaged_pages_are_computed(pack: Pack, store: StoreSettings, server: EmbeddedRedis, damage: str) -> None:
    async with local_pipeline(pack, 2, store=store, choose=always) as local:
        first = await local.submit(PROMPT, ANSWER, sampled(1), session="s").done()
        await stored(local)
        local.engine.forget("s")
        with Redis.from_url(server.url, driver_info=None) as with_all:
            index = min(with_all.zrange(key, 0, -1) for key in used_keys(with_all))
            key, other = (f"{PREFIX}page:{name.decode()}" for name in index[-4:-2])
            value = with_all.getrange(key, 0, -1)
            changed = {"cut": value[:-1], "flipped": value[:99] + bytes([value[99] ^ 1]) + value[100:], "gone": b""}
            with_all.set(key, changed.get(damage, with_all.getrange(other, 0, -1)))
            if damage == "gone":
                with_all.delete(key)
        answer = local.submit(PROMPT, ANSWER, sampled(1))
        assert await answer.done() == first
        restored = local.request(answer).restored
        assert restored is not None
        assert 0 <= restored.pages < 6
        assert sum(s.pages.counters.damaged for s in local.stages if s.pages) == (damage != "gone")
        assert all(s.pages and s.pages.reader.fetched_bytes == 0 for s in local.stages)


def used_keys(client: Redis) -> list[str]:
    return [f"{PREFIX}used:{stage.decode()}" for stage in client.hgetall(PREFIX + "stages")]


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_store_that_hangs_or_dies_costs_a_moment(
    pack: Pack, store: StoreSettings, server: EmbeddedRedis, fault: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the question, in the middle of reading, and while pages are written."""
    right = expected(pack, (*PROMPT, 7), GREEDY)

    def stopping(*_: object) -> float:
        """The store has just said what it has; from now on it is asked no longer than usual."""
        monkeypatch.setattr(page_fetching, "_FIND_SECONDS", USUAL)
        os.kill(server.pid, fault)
        return 0.5

    async with local_pipeline(pack, 2, store=store, choose=stopping) as local:
        await local.submit(PROMPT, 4, session="s").done()
        await stored(local)
        local.engine.forget("s")
        try:
            for _ in range(3):
                answer = local.submit([*PROMPT, 7], ANSWER)
                assert await answer.done() == right
                restored = local.request(answer).restored
                assert restored is not None
                assert restored.pages == 0
                assert restored.seconds < 8  # 0.75 at most, and what a busy machine adds

            async def noticed() -> bool:
                return all(s.pages is not None and s.pages.counters.failures for s in local.stages)

            await eventually(noticed)
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_a_caller_who_leaves_while_pages_are_read_leaves_none_behind(pack: Pack, store: StoreSettings) -> None:
    async with local_pipeline(pack, 2, store=store, choose=always) as local:
        await local.submit(PROMPT, 4, session="s").done()
        await stored(local)
        local.engine.forget("s")
        for delay in range(8):
            answer = local.submit(PROMPT, 4)
            for _ in range(delay):
                await asyncio.sleep(0.002)
            local.drop(answer)
        await local.emptied()

        async def nothing_held() -> bool:
            return all(s.pages is not None and s.pages.reader.fetched_bytes == 0 for s in local.stages)

        await eventually(nothing_held)


async def test_steps_that_are_sent_ahead_save_what_is_known(pack: Pack, store: StoreSettings) -> None:
    """The last token of a page may be one that the coordinator does not know yet."""
    async with local_pipeline(pack, 1, store=store, choose=always, speculation=False) as local:
        rows = local.engine.scheduler._rows
        rows._config = dataclasses.replace(rows._config, ahead=True)
        local.engine.scheduler.cost.gap = 0.5
        first = await local.submit(PROMPT, 60, sampled(2), session="s").done()
        await stored(local)
        local.engine.forget("s")
        answer = local.submit([*PROMPT, *first, 7], ANSWER, sampled(2))
        assert await answer.done() == answer_by_hand(pack, [*PROMPT, *first, 7], ANSWER, sampled(2))
        assert local.request(answer).cached >= 144  # the last page filled with the last step


async def test_by_measurement_the_first_fetch_finds_out(pack: Pack, store: StoreSettings) -> None:
    async with local_pipeline(pack, 1, store=store) as local:
        await local.submit(PROMPT, 4, session="s").done()
        await stored(local)
        local.engine.forget("s")
        local.engine.scheduler.cost.slowest_prefill_ns = 1e9
        answer = local.submit(PROMPT, 4)
        await answer.done()
        assert local.request(answer).cached == 96
        pages = local.stages[0].pages
        assert pages is not None
        assert pages.reader.bytes_per_s() > 0
        local.engine.scheduler.cost.slowest_prefill_ns = 1.0
        answer = local.submit(PROMPT, 4)
        await answer.done()
        assert local.request(answer).cached == 0


def test_what_is_quicker() -> None:
    found = [pb.FindPagesResponse(pages=9, page_bytes=1000, bytes_per_s=speed) for speed in (10_000, 2_000)]
    assert quicker(found, 8, 0.0) > 0  # nobody knows what computing costs
    assert quicker(found, 8, 4e9 / 128 * 1.1) == pytest.approx(4.4)  # the slower one reads for 4 s
    assert quicker(found, 8, 4e9 / 128 * 0.9) == 0
    unknown = [pb.FindPagesResponse(pages=9, page_bytes=1000)]
    assert quicker(unknown, 8, 1e3) == pytest.approx(128e-6)


def test_the_servers_user_may_run_no_more() -> None:
    assert not set(COMMANDS) & {"eval", "flushall", "keys", "config", "scan", "get"}
