"""Workers and whole nodes that die or freeze under running streams, on real Ray nodes: the same tokens, nothing left.

A cluster of its own: its nodes are killed. Nothing is asserted about how long things take, but for generous limits.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from tests.support.by_hand import answer_by_hand
from tests.support.listeners import Answer
from tests.support.pipeline import GREEDY, sampled
from tests.support.ray_nodes import ray_nodes
from tests.support.waiting import eventually

from trireme_coordinator.app import Running, running
from trireme_coordinator.bench.recovery import listener_of
from trireme_coordinator.config import ServeConfig
from trireme_coordinator.loss import Cause, Method
from trireme_coordinator.scheduler import Sequence as Request
from trireme_coordinator.stages import Stages
from trireme_worker.pack import Pack, default_pack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
NODES = 3
SECONDS = 60.0
PROMPTS = [(0, 300, 301, 302), (0, *range(400, 480)), (0, 7, 8, 9, 500, 501)]
HOW = [GREEDY, sampled(5), sampled(6)]
ANSWER = 60


@pytest.fixture(scope="module")
def undisturbed() -> list[list[int]]:
    pack = Pack.open(default_pack())
    return [answer_by_hand(pack, prompt, ANSWER, how) for prompt, how in zip(PROMPTS, HOW, strict=True)]


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A Ray cluster whose nodes may be lost."""
    with ray_nodes(NODES, first=31) as cluster:
        yield cluster


@asynccontextmanager
async def serving(cluster: Any, redis_url: str, stages: int) -> AsyncIterator[Running]:
    config = ServeConfig(
        stages=stages, listen="127.0.0.1:0", ray_address=cluster.address, redis_url=redis_url, prefill_chunk=7
    )
    async with running(config, lambda _: None) as server:
        yield server


class Struck(Answer):
    """Calls `strike` once, when it has so many tokens; 0: when its prompt is about to be computed."""

    def __init__(self, tokens: int, strike: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._strike = tokens, strike

    def admitted(self) -> None:
        super().admitted()
        self._look()

    def token(self, token_id: int) -> Any:
        told = super().token(token_id)
        self._look()
        return told

    def _look(self) -> None:
        if len(self.tokens) == self._at:
            self._at = -1
            self._strike()


def pids(server: Running) -> list[int]:
    assert server.engine.pipeline is not None
    return [listener_of(address) for address in server.engine.pipeline.addresses]


async def answers_of(server: Running, tokens: int, strike: Callable[[], None]) -> list[list[int]]:
    """The answers to all prompts; `strike` when the first one has so many tokens."""
    answers = [Struck(tokens if i == 0 else -1, strike) for i in range(len(PROMPTS))]
    for prompt, how, answer in zip(PROMPTS, HOW, answers, strict=True):
        server.engine.submit(Request(list(prompt), how, ANSWER), answer)
    return [await answer.done(SECONDS) for answer in answers]


def sending(number: int, victims: Sequence[int]) -> Callable[[], None]:
    return lambda: [os.kill(pid, number) for pid in victims] and None


async def gone(pid: int) -> bool:
    await asyncio.sleep(0)
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def ended(victims: Sequence[int]) -> None:
    for pid in victims:
        await eventually(lambda pid=pid: gone(pid), SECONDS)


async def test_workers_that_are_killed(nodes: Any, redis_url: str, undisturbed: list[list[int]]) -> None:
    """One in its prompt, one later, two at once; intact ones keep their processes."""
    async with serving(nodes, redis_url, 3) as server:
        for lost, tokens in (([1], 0), ([0], 9), ([2], 30), ([0, 2], 20)):
            before, count = pids(server), server.engine.recoveries.count
            strike = sending(signal.SIGKILL, [before[i] for i in lost])
            assert await answers_of(server, tokens, strike) == undisturbed, lost
            after = pids(server)
            assert [i for i in range(3) if before[i] != after[i]] == lost
            event = server.engine.recoveries.events[-1]
            assert (event.cause, event.method, event.sequences) == (Cause.DEAD, Method.RESTARTED, 3)
            assert set(event.stages) == set(lost)
            assert server.engine.recoveries.count == count + 1


async def test_a_frozen_worker_ends_and_wakes_up_for_nothing(
    nodes: Any, redis_url: str, undisturbed: list[list[int]]
) -> None:
    async with serving(nodes, redis_url, 2) as server:
        frozen = pids(server)[1]
        assert await answers_of(server, 10, sending(signal.SIGSTOP, [frozen])) == undisturbed
        event = server.engine.recoveries.events[-1]
        assert (event.cause, event.stages, event.method) == (Cause.SILENT, (1,), Method.RESTARTED)
        epoch = server.engine.epoch
        if psutil.pid_exists(frozen):
            os.kill(frozen, signal.SIGCONT)
        assert await answers_of(server, -1, lambda: None) == undisturbed  # while it wakes up
        await ended([frozen])
        assert server.engine.epoch == epoch


async def test_a_worker_that_is_killed_while_another_one_starts_again(
    nodes: Any, redis_url: str, undisturbed: list[list[int]]
) -> None:
    async with serving(nodes, redis_url, 3) as server:
        before = pids(server)

        async def second() -> None:
            await server.engine.lost.wait()
            os.kill(before[2], signal.SIGKILL)

        waiting = asyncio.ensure_future(second())
        assert await answers_of(server, 5, sending(signal.SIGKILL, before[:1])) == undisturbed
        await waiting
        assert set().union(*(event.stages for event in server.engine.recoveries.events)) == {0, 2}


async def test_a_lost_node(nodes: Any, redis_url: str, undisturbed: list[list[int]]) -> None:
    """Its stage moves to the spare node; with the spare lost too, beside the other stage."""
    async with serving(nodes, redis_url, 2) as server:
        for left in (2, 1):
            victim = next(n for n in nodes.worker_nodes if n.node_ip_address == server.placed[1].node.address)
            intact = pids(server)[0]

            def strike(victim: Any = victim) -> None:
                raylet = psutil.Process(victim.all_processes["raylet"][0].process.pid)
                for each in [raylet, *raylet.children(recursive=True)]:
                    each.kill()

            assert await answers_of(server, 10, strike) == undisturbed
            assert server.engine.recoveries.events[-1].method == Method.MOVED
            assert server.engine.recoveries.events[-1].stages == (1,)
            assert pids(server)[0] == intact
            nodes.remove_node(victim, allow_graceful=False)
            assert len({stage.node.address for stage in server.placed}) == left


async def test_a_frozen_node(nodes: Any, redis_url: str, undisturbed: list[list[int]]) -> None:
    """Raylet and worker stand still: Ray still thinks that the node lives when its stage moves. When it wakes up, its
    worker ends.
    """
    async with serving(nodes, redis_url, 2) as server:
        victim = next(n for n in nodes.worker_nodes if n.node_ip_address == server.placed[1].node.address)
        raylet = psutil.Process(victim.all_processes["raylet"][0].process.pid)
        worker = pids(server)[1]
        family = [worker, raylet.pid]
        assert await answers_of(server, 10, sending(signal.SIGSTOP, family)) == undisturbed
        event = server.engine.recoveries.events[-1]
        assert (event.cause, event.stages, event.method) == (Cause.SILENT, (1,), Method.MOVED)
        sending(signal.SIGCONT, family)()
        await ended([worker])
        assert await answers_of(server, -1, lambda: None) == undisturbed


async def test_no_place_left(
    nodes: Any, redis_url: str, undisturbed: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says so; the stream goes on when a node joins."""
    made: list[Stages] = []
    assign = Stages.assign

    def assigned(self: Stages, *args: Any, **how: Any) -> None:
        made.append(self)
        assign(self, *args, **how)

    monkeypatch.setattr(Stages, "assign", assigned)
    async with serving(nodes, redis_url, 2) as server:
        for node in list(nodes.worker_nodes):
            if node.node_ip_address != server.placed[1].node.address:
                nodes.remove_node(node)
        victim = next(n for n in nodes.worker_nodes if n.node_ip_address == server.placed[1].node.address)
        stages = made[-1]
        stages._needed = lambda _: 1 << 60  # more than any node has, beside what is there

        async def joins() -> None:
            async def waits() -> bool:
                await asyncio.sleep(0)
                return "No node that lives has room for stage 1" in server.engine.recoveries.trouble

            await eventually(waits, SECONDS)
            assert not server.engine.ready.is_set()
            stages._needed = lambda _: 1

        joining = asyncio.ensure_future(joins())
        raylet = psutil.Process(victim.all_processes["raylet"][0].process.pid)
        family = [each.pid for each in (raylet, *raylet.children(recursive=True))]
        assert await answers_of(server, 10, sending(signal.SIGKILL, family)) == undisturbed
        await joining
        assert server.engine.recoveries.trouble == ""
