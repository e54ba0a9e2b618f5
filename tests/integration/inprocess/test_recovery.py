"""Stages that are lost in mid-answer, coordinators that vanish: streams go on with the same tokens, nothing is left."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from tests.support.by_hand import answer_by_hand
from tests.support.listeners import Answer
from tests.support.pipeline import GREEDY, LocalPipeline, StageServer, local_pipeline, running, sampled
from tests.support.waiting import eventually

from trireme_coordinator.engine import Engine
from trireme_coordinator.loss import StageLost
from trireme_coordinator.pipeline import Pipeline, highest_epoch
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.scheduler import Sequence as Request
from trireme_proto.errors import Internal, PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageServicer, StageStub, add_StageServicer_to_server
from trireme_worker.pack import Pack

PROMPTS = [(0, 300, 301, 302), (0, *range(400, 440)), (0, 7, 8, 9, 500, 501)]
HOW = [GREEDY, sampled(5), sampled(6)]
ANSWER = 24


@pytest.fixture(scope="module")
def undisturbed(pack: Pack) -> list[list[int]]:
    return [answer_by_hand(pack, prompt, ANSWER, how) for prompt, how in zip(PROMPTS, HOW, strict=True)]


def _submit_all(local: LocalPipeline, answer: type[Answer] = Answer) -> list[Answer]:
    return [local.submit(p, ANSWER, how, answer=answer()) for p, how in zip(PROMPTS, HOW, strict=True)]


@pytest.fixture
def never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that lost its pipeline does not come back within the test."""
    monkeypatch.setattr("trireme_coordinator.engine._PAUSE_SECONDS", 1000)


@pytest.mark.parametrize("lost", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    ("way", "after"),
    [("cut", 0), ("cut", 1), ("cut", 9), ("stop", 9)],
    ids=["cut-in-prefill", "cut-after-one-token", "cut-in-decode", "stopped-in-decode"],
)
async def test_a_lost_stage(pack: Pack, undisturbed: list[list[int]], lost: int, way: str, after: int) -> None:
    async with local_pipeline(pack, 3, chunk=7) as local:
        answers = _submit_all(local)
        await answers[1].until(lambda a: a.prefilled > 0 and len(a.tokens) >= after)
        await getattr(local.stages[lost], way)()
        assert [await answer.done() for answer in answers] == undisturbed
        assert [answer.events for answer in answers] == [["admitted", "finished"]] * 3
        assert (local.launches, local.engine.epoch) == (2, 2)
        await local.emptied()


async def test_a_stage_that_falls_silent(pack: Pack, undisturbed: list[list[int]]) -> None:
    """Nothing is closed, nothing arrives: keepalive notices within three seconds, on both sides."""
    async with local_pipeline(pack, 3) as local:
        answers = _submit_all(local)
        await answers[0].until(lambda a: len(a.tokens) >= 3)
        silent = local.stages[1]
        await silent.stall()
        assert [await answer.done() for answer in answers] == undisturbed

        async def freed() -> bool:
            return not (await silent.report()).kv_pages_used

        await eventually(freed)


async def test_a_call_that_the_other_side_cancels_is_a_lost_stage(
    pack: Pack, undisturbed: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC says it with CancelledError, which must not be taken for the end of the service."""
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        await answers[0].until(lambda a: len(a.tokens) >= 3)
        whole = Pipeline.receive

        async def cancelled(self: Pipeline) -> pb.StepResult:
            monkeypatch.setattr(Pipeline, "receive", whole)
            raise asyncio.CancelledError

        monkeypatch.setattr(Pipeline, "receive", cancelled)
        assert [await answer.done() for answer in answers] == undisturbed
        assert local.engine.epoch == 2


async def test_stages_lost_again_and_again(pack: Pack, undisturbed: list[list[int]]) -> None:
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        for i in range(6):  # more often than a sequence that gets nowhere is given
            await answers[0].until(lambda a, least=3 * i + 1: len(a.tokens) >= least)
            await local.stages[i % 2].cut()
        assert [await answer.done() for answer in answers] == undisturbed
        await local.emptied()


async def test_a_stage_that_cannot_be_started_at_once(pack: Pack, undisturbed: list[list[int]], monkeypatch) -> None:
    monkeypatch.setattr("trireme_coordinator.engine._LAUNCH_PAUSE_SECONDS", 0.01)
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        await answers[0].until(lambda a: len(a.tokens) >= 2)
        real, refusals = local.engine._launch, iter(range(3))

        async def launch() -> list[str]:
            if next(refusals, None) is not None:
                raise PipelineUnavailable("A worker is not there yet.")
            return await real()

        monkeypatch.setattr(local.engine, "_launch", launch)
        await local.stages[1].cut()
        assert [await answer.done() for answer in answers] == undisturbed


async def test_a_stage_that_never_answers_does_not_end_the_engine(pack: Pack, monkeypatch) -> None:
    """A port that accepts connections and says nothing."""
    monkeypatch.setattr("trireme_coordinator.pipeline._CONNECT_SECONDS", 0.3)
    silent = socket.create_server(("127.0.0.1", 0))
    stage = StageServer(pack, range(pack.config.layers))
    await stage.start()
    addresses = iter([f"127.0.0.1:{silent.getsockname()[1]}"])

    async def launch() -> list[str]:
        return [next(addresses, stage.address)]

    engine = Engine(SchedulerConfig(1, 16, 256, 256, 256, 8), launch)
    try:
        async with running(engine):
            answer = Answer()
            engine.submit(Request([*PROMPTS[0]], GREEDY, 3), answer)
            assert len(await answer.done()) == 3
            assert engine.epoch == 1  # the silent one never got that far
    finally:
        await stage.stop()
        silent.close()


async def test_an_epoch_that_somebody_else_began_is_passed(pack: Pack, undisturbed: list[list[int]]) -> None:
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        await answers[0].until(lambda a: len(a.tokens) >= 2)
        async with grpc.aio.insecure_channel(local.stages[1].address) as channel:
            await StageStub(channel).Configure(pb.ConfigureRequest(epoch=5000, stage=1))
            with pytest.raises(grpc.aio.AioRpcError, match="too far"):
                await StageStub(channel).Configure(pb.ConfigureRequest(epoch=2**64 - 1, stage=1))
        assert [await answer.done() for answer in answers] == undisturbed
        assert local.engine.epoch == 5001


async def test_a_vanished_coordinator_frees_all_slots_on_every_stage(pack: Pack, never_again: None) -> None:
    async with local_pipeline(pack, 3) as local:
        answers = _submit_all(local)
        await answers[0].until(lambda a: len(a.tokens) >= 2)
        await local.all_reports(lambda report: report.kv_pages_used > 0 and report.slots_used == 3)
        await local.stages[0].cut()  # all that the stages see of a coordinator that dies is this hop, and the results
        await local.all_reports(lambda r: r.epoch == 1 and not r.kv_pages_used and not r.attached)


async def test_a_stopped_engine_frees_all_slots_and_tells_everybody(pack: Pack, never_again: None) -> None:
    async with local_pipeline(pack, 2) as local:
        other = Engine(local.engine.scheduler.config, local.launch)
        answer = Answer()
        async with running(other):
            assert other.epoch == 2  # above what the stages had seen
            other.submit(Request([*PROMPTS[1]], GREEDY, 150), answer)
            await answer.until(lambda a: len(a.tokens) >= 2)
        with pytest.raises(PipelineUnavailable, match="stopping"):
            await answer.done()
        with pytest.raises(PipelineUnavailable, match="stopping"):
            other.submit(Request([*PROMPTS[1]], GREEDY, 1), Answer())
        await local.all_reports(lambda report: not report.kv_pages_used and not report.attached)


async def test_a_second_coordinator_takes_over_with_a_higher_epoch(pack: Pack, never_again: None) -> None:
    async with local_pipeline(pack, 2) as local:
        first = local.submit(PROMPTS[0], 100)
        await first.until(lambda a: len(a.tokens) >= 2)
        addresses = [stage.address for stage in local.stages]
        async with Pipeline(addresses, 50) as taken:
            assert [report.epoch for report in await taken.reports() if report] == [50, 50]
            assert [report.kv_pages_used for report in await taken.reports() if report] == [0, 0]


async def test_an_old_epoch_is_refused(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        addresses = [stage.address for stage in local.stages]
        for epoch in (0, 1):
            with pytest.raises(PipelineUnavailable):
                async with Pipeline(addresses, epoch):
                    pass
        assert len(await local.submit(PROMPTS[0], 3).done()) == 3
        assert local.engine.epoch == 1  # nobody was disturbed


async def test_reports_of_a_pipeline_that_breaks(pack: Pack) -> None:
    async with local_pipeline(pack, 2) as local:
        pipeline = local.engine.pipeline
        assert pipeline is not None
        await local.stages[1].cut()
        reports = await pipeline.reports()  # its channels are closed in the middle of it
        assert len(reports) == 2
        assert reports[1] is None


async def test_reports_of_a_pipeline_that_is_over(pack: Pack) -> None:
    """Who asks for the status while the next epoch begins still has the pipeline of the last one."""
    async with local_pipeline(pack, 2) as local:
        async with Pipeline([stage.address for stage in local.stages], 50) as over:
            pass
        assert await over.reports() == [None, None]
        assert await over.measure(0, 1.0) == 0.0


async def test_a_request_on_which_the_pipeline_always_breaks_is_given_up(pack: Pack, monkeypatch) -> None:
    monkeypatch.setattr("trireme_coordinator.engine._PAUSE_SECONDS", 0)
    async with local_pipeline(pack, 2) as local:
        poison = local.submit([0, 300, pack.config.vocabulary], 5)  # the first stage refuses the frame
        with pytest.raises(PipelineUnavailable, match="again and again"):
            await poison.done()
        assert local.launches == 5
        assert len(await local.submit(PROMPTS[0], 3).done()) == 3


async def test_what_a_stage_refused_is_in_the_log(pack: Pack, caplog) -> None:
    async with local_pipeline(pack, 3) as local:
        before = local.launches
        answer = local.submit(PROMPTS[0], 20)
        await answer.until(lambda a: len(a.tokens) >= 2)
        local.stages[2].model.kv.release(local.request(answer).slot or 0)  # the last stage loses what it held
        await answer.done()
        assert local.launches == before + 1
        assert [r.message for r in caplog.records if "holds 0 tokens, the row starts at" in r.message]


async def test_a_fault_of_the_engine_ends_every_request_and_not_the_service(pack: Pack, monkeypatch, caplog) -> None:
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        await answers[0].until(lambda a: len(a.tokens) >= 2)
        with monkeypatch.context() as broken:
            broken.setattr(local.engine.scheduler, "complete", _broken)
            for answer in answers:
                with pytest.raises(Internal, match="log"):
                    await answer.done()
        assert "a fault for the test" in caplog.text
        assert len(await local.submit(PROMPTS[0], 3).done()) == 3
        await local.emptied()


def _broken(*_: object) -> None:
    raise ZeroDivisionError("a fault for the test")


@pytest.mark.parametrize("where", ["admitted", "timed", "token", "finished"])
async def test_a_fault_of_one_listener_ends_that_request_alone(
    pack: Pack, undisturbed: list[list[int]], where: str, caplog
) -> None:
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        broken = Answer()
        setattr(broken, where, _raises)
        local.submit(PROMPTS[0], 4, answer=broken)
        with pytest.raises(Internal):
            await broken.done()
        assert [await answer.done() for answer in answers] == undisturbed
        assert "a fault for the test" in caplog.text
        await local.emptied()


def _raises(*_: object, **__: object) -> None:
    raise ZeroDivisionError("a fault for the test")


async def test_results_that_do_not_fit_break_the_pipeline_and_lose_nothing(
    pack: Pack, undisturbed: list[list[int]], monkeypatch
) -> None:
    """The last stage answers for another slot, then for a step that is not due."""
    async with local_pipeline(pack, 2) as local:
        answers = _submit_all(local)
        for wrong in (pb.StepResult(step=1 << 40), pb.StepResult(step=1, tokens=[pb.SampledToken(slot=15)])):
            epoch = local.engine.epoch
            await answers[0].until(lambda a, seen=tuple(answers[0].tokens): len(a.tokens) > len(seen))
            local.stages[1].service._epoch.results.put_nowait(wrong)
            await local.rebuilt(epoch)
        assert [await answer.done() for answer in answers] == undisturbed


async def test_unsolicited_results_when_idle(pack: Pack) -> None:
    async with local_pipeline(pack, 1) as local:
        local.stages[0].service._epoch.results.put_nowait(pb.StepResult(step=1))
        await local.rebuilt(1)
        assert len(await local.submit(PROMPTS[0], 3).done()) == 3


class _NeverReads(StageServicer):
    """Takes its configuration, and never answers a call for results."""

    async def Configure(self, request, context):  # noqa: N802
        return pb.ConfigureResponse()

    async def Pulse(self, request, context):  # noqa: N802
        return pb.PulseResponse(epoch=1)

    async def Results(self, request, context):  # noqa: N802
        await asyncio.Event().wait()


async def test_a_stage_that_stands_still_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trireme_coordinator.pipeline._CONNECT_SECONDS", 0.3)
    server = grpc.aio.server()
    add_StageServicer_to_server(_NeverReads(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    with pytest.raises(PipelineUnavailable, match="does not answer"):
        async with Pipeline([address], 1):
            pass
    await server.stop(None)


async def test_nobody_listens_where_a_stage_was(pack: Pack) -> None:
    """It is said at once: waiting would only keep the launcher from looking after it."""
    async with asyncio.timeout(60):
        with pytest.raises(StageLost, match="stage 0 is dead"):
            async with Pipeline(["127.0.0.1:1"], 1):
                pass
        with pytest.raises(StageLost, match="stage 0 is dead"):
            await highest_epoch(["127.0.0.1:1"])
