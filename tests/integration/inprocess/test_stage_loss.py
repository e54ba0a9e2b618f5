"""How a stage is lost decides what is said and done about it: hung, silent, dead, refused. The tokens stay the same."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from tests.support.by_hand import answer_by_hand
from tests.support.pipeline import GREEDY, LocalPipeline, local_pipeline, sampled
from tests.support.waiting import eventually

from trireme_coordinator.loss import Cause, Method
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker import frame_flow, link
from trireme_worker.pack import Pack
from trireme_worker.stage import StageModel

PROMPTS = [(0, 300, 301, 302), (0, *range(400, 440))]
HOW = [GREEDY, sampled(5)]
ANSWER = 24


@pytest.fixture(scope="module")
def undisturbed(pack: Pack) -> list[list[int]]:
    return [answer_by_hand(pack, prompt, ANSWER, how) for prompt, how in zip(PROMPTS, HOW, strict=True)]


class Hook:
    """Stands in the way of one stage's computation, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.victim: StageModel | None = None
        self.let_go = threading.Event()
        self.pulses = 0
        real, pulse = StageModel.forward, StageModel.pulse.fget

        def forward(model: StageModel, *args: object) -> object:
            if model is self.victim:
                self.let_go.wait()
            return real(model, *args)

        def pulsing(model: StageModel) -> int:
            if model is self.victim and self.pulses:
                self.pulses += 1
            return pulse(model) + self.pulses

        monkeypatch.setattr(StageModel, "forward", forward)
        monkeypatch.setattr(StageModel, "pulse", property(pulsing))


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    one = Hook(monkeypatch)
    yield one
    one.let_go.set()


@pytest.mark.parametrize("after", [0, 5], ids=["in-prefill", "in-decode"])
async def test_a_computation_that_hangs(pack: Pack, undisturbed: list[list[int]], hook: Hook, after: int) -> None:
    """The stage answers all the time, and its neighbours live: only its progress tells."""
    async with local_pipeline(pack, 3, chunk=7) as local:
        answers = [local.submit(p, ANSWER, how) for p, how in zip(PROMPTS, HOW, strict=True)]
        await answers[0].until(lambda a: a.prefilled > 0 and len(a.tokens) >= after)
        hook.victim = local.stages[1].model
        assert [await answer.done() for answer in answers] == undisturbed
        assert [(loss.stage, loss.cause) for loss in local.discarded] == [(1, Cause.HUNG)]
        assert [e.cause for e in local.engine.recoveries.events] == [Cause.HUNG]
        hook.let_go.set()  # it wakes up, and disturbs nobody
        assert await local.submit(PROMPTS[0], ANSWER).done() == undisturbed[0]
        assert local.engine.epoch == 2


async def test_a_long_computation_that_gets_on_is_left_alone(
    pack: Pack, undisturbed: list[list[int]], hook: Hook
) -> None:
    async with local_pipeline(pack, 2) as local:
        answer = local.submit(PROMPTS[0], ANSWER)
        await answer.until(lambda a: len(a.tokens) >= 2)
        hook.pulses, hook.victim = 1, local.stages[0].model

        async def looked_at() -> bool:
            return hook.pulses >= 12  # a question each 0.2 s: far longer than a hung stage is given

        await eventually(looked_at)
        hook.let_go.set()
        assert await answer.done() == undisturbed[0]
        assert (local.engine.epoch, local.discarded) == (1, [])


class Cut:
    """Frames to one address are sent and do not arrive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address = ""
        cut, real = self, link.forward_to

        @asynccontextmanager
        async def forward_to(address: str, epoch: int, opened: link.Open) -> AsyncIterator[link.ForwardCall]:
            async with real(address, epoch, opened) as call:
                send = call.send

                async def lossy(frame: pb.Frame) -> None:
                    if address != cut.address:
                        await send(frame)

                monkeypatch.setattr(call, "send", lossy)
                yield call

        monkeypatch.setattr(frame_flow, "forward_to", forward_to)


@pytest.mark.parametrize("after", [0, 5], ids=["in-prefill", "in-decode"])
async def test_frames_that_do_not_arrive(
    pack: Pack, undisturbed: list[list[int]], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Both stages live and answer the coordinator; only what one sends to the other is lost."""
    cut = Cut(monkeypatch)
    async with local_pipeline(pack, 3, chunk=7) as local:
        answers = [local.submit(p, ANSWER, how) for p, how in zip(PROMPTS, HOW, strict=True)]
        await answers[0].until(lambda a: a.prefilled > 0 and len(a.tokens) >= after)
        cut.address = local.stages[2].address
        assert [await answer.done() for answer in answers] == undisturbed
        (event,) = local.engine.recoveries.events
        assert (event.cause, event.stages, event.method) == (Cause.CUT, (2,), Method.RESTARTED)
        assert [(loss.stage, loss.cause) for loss in local.discarded] == [(2, Cause.CUT)]


async def _lose(local: LocalPipeline, way: str, stages: list[int]) -> None:
    for stage in stages:
        await getattr(local.stages[stage], way)()


@pytest.mark.parametrize(
    ("way", "lost", "cause"),
    [
        ("stall", [1], Cause.SILENT),
        ("cut", [0], Cause.DEAD),
        ("cut", [0, 2], Cause.DEAD),
        ("stall", [0, 2], Cause.SILENT),
    ],
)
async def test_what_is_remembered(
    pack: Pack, undisturbed: list[list[int]], way: str, lost: list[int], cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_pipeline(pack, 3) as local:
        answers = [local.submit(p, ANSWER, how) for p, how in zip(PROMPTS, HOW, strict=True)]
        await answers[0].until(lambda a: len(a.tokens) >= 3)
        assert local.engine.recoveries.trouble == ""
        await _lose(local, way, lost)
        assert [await answer.done() for answer in answers] == undisturbed
        (event,) = local.engine.recoveries.events
        assert (event.cause, set(event.stages), event.method) == (cause, set(lost), Method.RESTARTED)
        assert (event.sequences, event.tokens >= sum(map(len, PROMPTS))) == (2, True)
        assert 0 <= event.detection_s < 10
        assert 0 < event.rebuild_s < 20
        assert [r.message for r in caplog.records if r.message.startswith(f"recovered: cause {cause}, stages lost")]


async def test_a_stage_lost_while_nobody_asks_for_anything(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        await local.stages[1].stall()
        await local.rebuilt(1)
        assert [loss.stage for loss in local.discarded] == [1]


async def test_a_second_loss_before_the_first_is_made_good_is_the_same_recovery(
    pack: Pack, undisturbed: list[list[int]]
) -> None:
    async with local_pipeline(pack, 3) as local:
        answer = local.submit(PROMPTS[0], ANSWER)
        await answer.until(lambda a: len(a.tokens) >= 3)
        real = local.engine._launch

        async def launch() -> list[str]:
            addresses = await real()
            if local.launches == 2:
                await local.stages[2].cut()
            return addresses

        local.engine._launch = launch
        await local.stages[0].cut()
        assert await answer.done() == undisturbed[0]
        (event,) = local.engine.recoveries.events
        assert event.stages == (0, 2)


async def test_a_refused_frame_costs_no_process(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        answer = local.submit(PROMPTS[0], ANSWER)
        await answer.until(lambda a: len(a.tokens) >= 2)
        local.stages[1].model.kv.release(local.request(answer).slot or 0)
        await answer.done()
        (event,) = local.engine.recoveries.events
        assert (event.cause, event.stages, event.method) == (Cause.REFUSED, (), Method.KEPT)
        assert local.discarded == []
