"""Coordinators that stand in for each other, as processes: killed, stopped and restarted while answers are read."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator

import psutil
import pytest
from tests.support.coordinator_processes import Coordinator, Coordinators
from tests.support.waiting import eventually

from trireme import AsyncClient, Client, Generation, errors
from trireme.results import TokenChunk

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
PROMPT = "Once upon a time"
TOKENS = 200


@pytest.fixture(scope="module")
def group() -> Iterator[Coordinators]:
    with Coordinators(2, "--stages", "2") as both:
        yield both


@pytest.fixture(scope="module")
def undisturbed(group: Coordinators) -> Generation:
    with Client(group.target) as client:
        return generate(client, 0).result()


def generate(client, n):
    return client.generate(PROMPT, max_tokens=TOKENS, ignore_eos=True, temperature=0.8, seed=n)


def leader_of(group: Coordinators) -> Coordinator:
    for each in group.all:
        with Client(each.address) as client:
            if client.status().leading:
                return each
    raise AssertionError("nobody leads")


def assert_the_same(chunks: list[TokenChunk], stream, want: Generation) -> None:
    ids = [token for chunk in chunks for token in chunk.token_ids]
    starts = [chunk.index for chunk in chunks if chunk.token_ids]
    assert starts == sorted(set(starts))  # nothing twice
    assert ids == list(want.token_ids)
    assert "".join(chunk.text for chunk in chunks) == want.text
    assert stream.finish_reason == want.finish_reason
    assert stream.usage.completion_tokens == want.usage.completion_tokens


def test_one_leads_and_the_other_says_so(group: Coordinators, undisturbed: Generation) -> None:
    leader = leader_of(group)
    (other,) = [each for each in group.all if each is not leader]
    with Client(other.address, patience=0) as client:
        with pytest.raises(errors.NotLeading, match="another one leads"):
            generate(client, 0).result()
        with pytest.raises(errors.NotLeading):
            client.sessions.create()
        status = client.status()
        assert (status.leading, status.ready, status.stages) == (False, False, ())
        assert status.reason == "This coordinator stands by."
        assert status.leader.rpartition(":")[2] == leader.address.rpartition(":")[2]
    with Client([other.address, leader.address]) as client:  # the wrong one first
        assert generate(client, 0).result().token_ids == undisturbed.token_ids


@pytest.mark.parametrize("after", [0, 1, 60])
def test_a_killed_leader_is_not_noticed(group: Coordinators, undisturbed: Generation, after: int) -> None:
    leader = leader_of(group)
    workers = stage_processes(group)
    with Client(group.target) as client:
        stream, chunks = generate(client, 0), []
        for chunk in stream:
            chunks.append(chunk)
            if sum(len(c.token_ids) for c in chunks) > after and leader.process is not None:
                leader.end(signal.SIGKILL)
        assert_the_same(chunks, stream, undisturbed)
        again = client.generate("more", session=stream.session_id, max_tokens=4).result()
        assert again.usage.prompt_tokens > TOKENS  # the session is whole
    assert stage_processes(group) == workers  # the weights were not loaded again
    assert "standing by" in leader.start()


async def test_a_rolling_restart_fails_no_call(group: Coordinators) -> None:
    rng = random.Random(7)
    async with AsyncClient(group.target) as client:
        want = await asyncio.gather(*(generate(client, n).result() for n in range(4)))
        stop = asyncio.Event()

        async def caller(n: int) -> int:
            calls = 0
            while not stop.is_set():
                stream = generate(client, n)
                chunks = [chunk async for chunk in stream]
                assert_the_same(chunks, stream, want[n])
                assert await client.tokenize(PROMPT)
                session = await client.sessions.create()
                await client.sessions.delete(session.session_id)
                calls += 1
            return calls

        callers = [asyncio.ensure_future(caller(n)) for n in range(4)]
        for _ in range(4):  # the leader and the other, twice
            each = leader_of(group) if rng.random() < 0.75 else group.all[0]
            assert await asyncio.to_thread(each.end, signal.SIGTERM) == 0
            assert ("Stopping" in each.errors, "Traceback" in each.errors) == (True, False), each.errors
            assert "standing by" in await asyncio.to_thread(each.start)
        stop.set()
        assert all(calls > 0 for calls in await asyncio.gather(*callers))


async def test_a_rolling_restart_of_the_workers_fails_no_call(group: Coordinators) -> None:
    """Each worker once, killed while clients read; the next one when the pipeline is whole again."""
    async with AsyncClient(group.target) as client:
        want = await asyncio.gather(*(generate(client, n).result() for n in range(4)))
        stop = asyncio.Event()

        async def caller(n: int) -> int:
            calls = 0
            while not stop.is_set():
                stream = generate(client, n)
                chunks = [chunk async for chunk in stream]
                assert_the_same(chunks, stream, want[n])
                calls += 1
            return calls

        callers = [asyncio.ensure_future(caller(n)) for n in range(4)]
        leader = leader_of(group)
        async with AsyncClient(leader.address) as asked:
            for worker in sorted(stage_processes(group)):
                recoveries = (await asked.status()).recoveries
                psutil.Process(worker).kill()

                async def whole(before: int = recoveries) -> bool:
                    status = await asked.status()
                    return status.ready and status.recoveries > before

                await eventually(whole, 120)
                assert worker not in stage_processes(group)
        stop.set()
        assert all(calls > 0 for calls in await asyncio.gather(*callers))
    assert leader_of(group) is leader


def test_a_worker_that_is_lost_with_the_leader(group: Coordinators, undisturbed: Generation) -> None:
    """The successor keeps the other one, and starts this one again."""
    leader, workers = leader_of(group), stage_processes(group)
    with Client(group.target) as client:
        stream, chunks = generate(client, 0), []
        for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == 20:
                leader.end(signal.SIGKILL)
                psutil.Process(min(workers)).kill()
        assert_the_same(chunks, stream, undisturbed)
    assert len(stage_processes(group)) == 2
    assert stage_processes(group) & workers == {max(workers)}
    assert "standing by" in leader.start()


def test_the_last_one_ends_the_stages() -> None:
    with Coordinators(1) as alone:
        (worker,) = stage_processes(alone)
        assert alone.all[0].end(signal.SIGTERM) == 0
        assert psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=10)[1] == []


def stage_processes(group: Coordinators) -> set[int]:
    family = psutil.Process(group.cluster.pid).children(recursive=True)
    return {each.pid for each in family if any("StageProcess" in part for part in each.cmdline())}
