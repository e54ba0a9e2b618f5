"""The stage service over real gRPC, spoken to by hand: who may send, when an epoch ends, what an end leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tests.support.frames import row, stepper, token_frame
from tests.support.waiting import eventually

from trireme_proto.errors import FrameRefused, PipelineUnavailable, TriremeError
from trireme_proto.status import from_grpc
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub, add_StageServicer_to_server
from trireme_worker.link import CHANNEL_OPTIONS, EPOCH_KEY, SERVER_OPTIONS, forward_to
from trireme_worker.server import StageService
from trireme_worker.stepper import Stepper

GREEDY = pb.RowSampling(temperature=0, top_p=1)


@dataclass
class Served:
    """A stage that serves, and a stub for it."""

    stub: Any
    address: str
    stepper: Stepper
    service: StageService

    async def configure(self, epoch: int, *, stage: int = 0, following: str = "", choices: str = "") -> None:
        await self.stub.Configure(
            pb.ConfigureRequest(epoch=epoch, stage=stage, next_address=following, last_address=choices)
        )

    def forward(self, epoch: int) -> Any:
        return self.stub.Forward(metadata=((EPOCH_KEY, str(epoch)),))

    async def freed(self, epoch: int) -> None:
        """Returns when the epoch has no sender and nothing is held."""

        async def holds() -> bool:
            report = await self.stub.Report(pb.ReportRequest())
            assert (report.epoch, report.integrity_error) == (epoch, "")
            return not report.attached and not report.kv_pages_used

        await eventually(holds)


@asynccontextmanager
async def served(layers: range, stage: int = 0) -> AsyncIterator[Served]:
    step = stepper(layers, stage=stage, epoch=0)
    service, server = StageService(step), grpc.aio.server(options=SERVER_OPTIONS)
    add_StageServicer_to_server(service, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        yield Served(StageStub(channel), address, step, service)
    await server.stop(None)
    await service.close()
    step.model.close()


@pytest.fixture
async def whole() -> AsyncIterator[Served]:
    """One stage with all layers."""
    async with served(range(6)) as stage:
        yield stage


@pytest.fixture
async def two() -> AsyncIterator[list[Served]]:
    async with served(range(3)) as first, served(range(3, 6), 1) as last:
        yield [first, last]


async def error_of(call: Any) -> TriremeError:
    """What a call ends with, as its typed error."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asyncio.wait_for(call, 60)
    return from_grpc(raised.value)


def prompt(step: int = 1, slot: int = 0, *, position: int = 0, tokens: int = 20, epoch: int = 1) -> pb.Frame:
    frame = token_frame(step, [row(slot, position, tokens, GREEDY)], range(300, 300 + tokens))
    frame.epoch = epoch
    return frame


async def test_a_pipeline_of_two_by_hand(two: list[Served], whole: Served) -> None:
    first, last = two
    await last.configure(1, stage=1)
    await first.configure(1, following=last.address)
    results = last.stub.Results(pb.ResultsRequest(epoch=1))
    await whole.configure(1)
    expected = whole.stub.Results(pb.ResultsRequest(epoch=1))
    calls = [first.forward(1), whole.forward(1)]
    for step in range(1, 4):
        for call in calls:
            await call.write(prompt(step, position=20 * (step - 1)))
    for step in range(1, 4):
        found, single = await results.read(), await expected.read()
        assert (found.step, found.tokens) == (step, single.tokens)
        assert (len(found.tokens), len(found.timings), len(single.timings)) == (1, 2, 1)
    for call in calls:
        await call.done_writing()
        assert (await call).frames == 3
    assert await results.read() is grpc.aio.EOF
    await last.freed(1)


async def test_an_orderly_end_loses_nothing(two: list[Served]) -> None:
    first, last = two
    for epoch in range(1, 6):
        await last.configure(epoch, stage=1)
        await first.configure(epoch, following=last.address)
        call = first.forward(epoch)
        for step in range(1, 6):
            await call.write(prompt(step, position=20 * (step - 1), epoch=epoch))
        await call.done_writing()
        assert (await call).frames == 5
        results = last.stub.Results(pb.ResultsRequest(epoch=epoch))  # after the end: they are kept for the reader
        assert [result.step async for result in results] == [1, 2, 3, 4, 5]
        await first.freed(epoch)


async def test_an_epoch_that_is_not_higher_is_refused(whole: Served) -> None:
    await whole.configure(5)
    call = whole.forward(5)
    await call.write(prompt(epoch=5))
    for epoch in (0, 4, 5):
        error = await error_of(whole.stub.Configure(pb.ConfigureRequest(epoch=epoch)))
        assert (type(error), error.message) == (FrameRefused, f"epoch {epoch} is over, this is 5")
    await call.write(prompt(2, position=20, epoch=5))  # nobody was disturbed
    await call.done_writing()
    assert (await call).frames == 2


async def test_no_single_call_can_use_up_all_epochs(whole: Served) -> None:
    await whole.configure(1 << 20)
    for epoch in ((1 << 40) + (1 << 20) + 1, (1 << 64) - 1):
        error = await error_of(whole.stub.Configure(pb.ConfigureRequest(epoch=epoch)))
        assert (type(error), "too far above" in error.message) == (FrameRefused, True)
    await whole.configure((1 << 40) + (1 << 20))


@pytest.mark.parametrize(
    ("layers", "stage", "following"),
    [
        (range(6), 1, ""),
        (range(6), 0, "a:1"),
        (range(3), 0, ""),
        (range(3), 1, "a:1"),
        (range(3, 6), 0, ""),
        (range(3, 6), 1, "a:1"),
    ],
)
async def test_a_place_that_the_layers_do_not_fit_is_refused(layers: range, stage: int, following: str) -> None:
    async with served(layers) as one:
        error = await error_of(one.stub.Configure(pb.ConfigureRequest(epoch=1, stage=stage, next_address=following)))
        assert isinstance(error, FrameRefused)
        assert (await one.stub.Report(pb.ReportRequest())).epoch == 0


@pytest.mark.parametrize("named", [None, "1", "3", "", "x"])
async def test_a_sender_of_another_epoch_is_refused_and_takes_nobodys_place(whole: Served, named: str | None) -> None:
    await whole.configure(2)
    metadata = () if named is None else ((EPOCH_KEY, named),)
    assert isinstance(await error_of(whole.stub.Forward(metadata=metadata)), FrameRefused)
    call = whole.forward(2)
    await call.write(prompt(epoch=2))
    await call.done_writing()
    assert (await call).frames == 1


async def test_nobody_sends_before_the_first_epoch(whole: Served) -> None:
    for epoch in ("0", "1"):
        assert isinstance(await error_of(whole.stub.Forward(metadata=((EPOCH_KEY, epoch),))), FrameRefused)


async def test_a_second_sender_is_refused_and_the_first_goes_on(whole: Served) -> None:
    await whole.configure(1)
    results = whole.stub.Results(pb.ResultsRequest(epoch=1))
    first = whole.forward(1)
    await first.write(prompt())
    await results.read()
    error = await error_of(whole.forward(1))
    assert (type(error), "has had its sender" in error.message) == (FrameRefused, True)
    await first.write(prompt(2, position=20))
    assert (await results.read()).step == 2
    first.cancel()
    await whole.freed(1)
    assert isinstance(await error_of(whole.forward(1)), FrameRefused)  # the epoch is over for good


@pytest.mark.parametrize("epoch", [0, 1, 3])
async def test_results_of_another_epoch(whole: Served, epoch: int) -> None:
    await whole.configure(2)
    assert isinstance(await error_of(whole.stub.Results(pb.ResultsRequest(epoch=epoch)).read()), FrameRefused)


async def test_results_have_one_reader_on_the_last_stage(two: list[Served]) -> None:
    first, last = two
    await last.configure(1, stage=1)
    await first.configure(1, following=last.address)
    reader = last.stub.Results(pb.ResultsRequest(epoch=1))
    await reader.initial_metadata()
    for stage in two:
        assert isinstance(await error_of(stage.stub.Results(pb.ResultsRequest(epoch=1)).read()), FrameRefused)
    reader.cancel()


async def test_choices_have_one_listener_on_the_last_stage(two: list[Served]) -> None:
    first, last = two
    await last.configure(1, stage=1)
    await first.configure(1, following=last.address)
    listener = last.stub.Choices(pb.ResultsRequest(epoch=1))
    await listener.initial_metadata()
    for stage in two:
        assert isinstance(await error_of(stage.stub.Choices(pb.ResultsRequest(epoch=1)).read()), FrameRefused)
    assert isinstance(await error_of(last.stub.Choices(pb.ResultsRequest(epoch=2)).read()), FrameRefused)
    await last.configure(2, stage=1)
    assert await listener.read() is grpc.aio.EOF


async def test_a_row_follows_what_the_last_stage_sampled(two: list[Served]) -> None:
    """The third frame is there before anybody but the last stage knows its token; told in advance it gives the same."""
    first, last = two
    found: list[list[pb.SampledToken]] = []
    for epoch, ahead in ((1, False), (2, True)):
        await last.configure(epoch, stage=1)
        await first.configure(epoch, following=last.address, choices=last.address)
        results, call = last.stub.Results(pb.ResultsRequest(epoch=epoch)), first.forward(epoch)
        await call.write(prompt(epoch=epoch))
        if not ahead:
            found.append([(await results.read()).tokens[0]])
        for step in (2, 3):
            frame = prompt(step, position=18 + step, tokens=1, epoch=epoch)
            frame.rows[0].follows = step - 1 if ahead else 0
            frame.token_ids[0] = 0 if ahead else found[0][-1].token_id
            await call.write(frame)
            if not ahead:
                found[0].append((await results.read()).tokens[0])
        if ahead:
            found.append([(await results.read()).tokens[0] for _ in range(3)])
        call.cancel()
        await first.freed(epoch)
    assert found[0] == found[1]
    assert len({token.token_id for token in found[0]}) > 1


async def test_nothing_was_sampled_that_a_row_could_follow(whole: Served) -> None:
    await whole.configure(1)
    call = whole.forward(1)
    await call.write(prompt())
    frame = prompt(2, slot=1, tokens=1)
    frame.rows[0].follows = 1
    await call.write(frame)
    error = await error_of(call)
    assert (type(error), error.message) == (FrameRefused, "step 1 sampled nothing for position 0 of its slot")


@pytest.mark.parametrize("refusing", [0, 1])
async def test_a_refused_frame_ends_the_epoch_everywhere_and_says_why(two: list[Served], refusing: int) -> None:
    first, last = two
    await last.configure(1, stage=1)
    await first.configure(1, following=last.address)
    results, call = last.stub.Results(pb.ResultsRequest(epoch=1)), first.forward(1)
    await call.write(prompt())
    await results.read()
    two[refusing].stepper.model.kv.release(0)  # its books and the sender's differ now
    await call.write(prompt(2, position=20))
    error = await error_of(call)
    assert (type(error), error.message) == (FrameRefused, "slot 0 holds 0 tokens, the row starts at 20")
    assert await results.read() is grpc.aio.EOF
    for stage in two:
        await stage.freed(1)


async def test_a_frame_that_does_not_parse_ends_the_call(whole: Served) -> None:
    await whole.configure(1)
    async with grpc.aio.insecure_channel(whole.address, CHANNEL_OPTIONS) as channel:
        raw: Any = channel.stream_unary("/trireme.v1.Stage/Forward")
        call = raw(metadata=((EPOCH_KEY, "1"),))
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError):
            await asyncio.wait_for(call, 60)
    await whole.freed(1)


async def test_a_new_epoch_ends_the_old_call(whole: Served) -> None:
    await whole.configure(1)
    results, call = whole.stub.Results(pb.ResultsRequest(epoch=1)), whole.forward(1)
    await call.write(prompt())
    await results.read()
    await whole.configure(2)
    error = await error_of(call)
    assert (type(error), error.message) == (PipelineUnavailable, "This epoch is over.")
    assert await results.read() is grpc.aio.EOF
    await whole.freed(2)


async def test_a_lost_next_stage_is_told_even_when_nobody_sends(two: list[Served]) -> None:
    first, last = two
    await last.configure(1, stage=1)
    await first.configure(1, following=last.address)
    async with forward_to(first.address, 1) as call:
        await call.send(prompt())
        await last.stub.Results(pb.ResultsRequest(epoch=1)).read()
        await last.configure(2, stage=1)  # it belongs to somebody else now
        with pytest.raises(PipelineUnavailable):
            await asyncio.wait_for(call.lost(), 60)
        with pytest.raises(PipelineUnavailable):
            await call.send(prompt(2))
    await first.freed(1)


async def test_a_next_stage_that_is_not_there(two: list[Served]) -> None:
    await two[0].configure(1, following="127.0.0.1:1")
    assert isinstance(await error_of(two[0].forward(1)), PipelineUnavailable)
    await two[0].freed(1)


@asynccontextmanager
async def held_up(stage: Served, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], None]]:
    """The stage's computation stands still from its next frame on, until what this gives is called."""
    begun, go_on, real = threading.Event(), threading.Event(), stage.stepper.model.forward

    def forward(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(timeout=60)
        return real(*args)

    monkeypatch.setattr(stage.stepper.model, "forward", forward)
    call = stage.forward(1)
    await call.write(prompt())
    assert await asyncio.to_thread(begun.wait, 10)
    try:
        yield go_on.set
    finally:
        go_on.set()
        call.cancel()


async def test_a_sender_who_leaves_in_mid_computation(whole: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slots are freed after the computation, not under it."""
    await whole.configure(1)
    async with held_up(whole, monkeypatch):
        assert whole.service.attached
    await whole.freed(1)
    assert whole.stepper.progress.steps == 1


async def test_an_epoch_that_begins_in_mid_computation(whole: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await whole.configure(1)
    async with held_up(whole, monkeypatch) as go_on:
        configuring = asyncio.ensure_future(whole.configure(2))
        reporting = asyncio.ensure_future(whole.stub.Report(pb.ReportRequest())._invocation_task)

        async def both_wait() -> bool:
            return whole.service._epoch.number == 2

        await eventually(both_wait)
        assert not configuring.done()
        assert not reporting.done()
        go_on()
        await configuring
    monkeypatch.undo()
    call = whole.forward(2)
    await call.write(prompt(epoch=2))
    await call.done_writing()
    assert (await call).frames == 1
    await whole.freed(2)


async def test_closing_in_mid_computation(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with served(range(6)) as stage:
        await stage.configure(1)
        async with held_up(stage, monkeypatch) as go_on:
            closing = asyncio.ensure_future(stage.service.close())
            await asyncio.sleep(0)
            go_on()
            await asyncio.wait_for(closing, 60)
    assert stage.stepper.model.kv.pages_used == 0
    assert caplog.text == ""


async def test_a_fault_in_the_computation_ends_the_call_and_frees_the_slots(
    whole: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await whole.configure(1)
    monkeypatch.setattr(whole.stepper.model, "sample", lambda *_: 1 / 0)
    call = whole.forward(1)
    await call.write(prompt())
    with pytest.raises(grpc.aio.AioRpcError):
        await asyncio.wait_for(call, 60)
    await whole.freed(1)
    assert "ZeroDivisionError" in caplog.text  # of the worker, for its makers


async def test_reports(whole: Served) -> None:
    report = await whole.stub.Report(pb.ReportRequest())
    assert (report.epoch, report.kv_pages_total, report.kv_pages_used, report.attached) == (0, 40, 0, False)
    await whole.configure(7)
    results, call = whole.stub.Results(pb.ResultsRequest(epoch=7)), whole.forward(7)
    frame = prompt(epoch=7)
    frame.rows.append(row(3, 0, 17))
    frame.token_ids.extend([5] * 17)
    await call.write(frame)
    await results.read()
    report = await whole.stub.Report(pb.ReportRequest())
    assert (report.epoch, report.kv_pages_used, report.slots_used, report.steps) == (7, 4, 2, 1)
    assert (report.integrity_error, report.attached) == ("", True)
    assert report.busy_ns > 0
    assert report.rss_bytes > 10 << 20
    call.cancel()
    await whole.freed(7)
