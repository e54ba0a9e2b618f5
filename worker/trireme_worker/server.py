"""The stage's gRPC service: takes frames in order, has them computed off the event loop, hands them to the next stage.

Owns the calls of an epoch. One Forward call lasts as long as its epoch; when it ends, for whatever reason, the slots
are freed, so that a coordinator that vanished leaves nothing behind. A lost neighbour ends the call with an error,
which travels up the pipeline, stage by stage, to the coordinator. Knows nothing of layers or kernels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import grpc
import psutil

from trireme_proto.errors import FrameRefused, PipelineUnavailable, TriremeError
from trireme_proto.status import to_grpc
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageServicer
from trireme_worker.batch import Sampled
from trireme_worker.link import NextStage
from trireme_worker.stepper import Stepper

Context = grpc.aio.ServicerContext[Any, Any]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Epoch:
    """The calls of one building of the pipeline."""

    number: int = 0
    next_address: str = ""
    attached: bool = False
    results: asyncio.Queue[pb.StepResult] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class StageService(StageServicer):
    """Serves one stage. All state is touched on the event loop, but for what the one compute thread works on."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._epoch = Epoch()
        self._compute = ThreadPoolExecutor(1, "stage")  # one: frames are computed in the order in which they came

    @property
    def attached(self) -> bool:
        """Whether frames come in right now."""
        return self._epoch.attached

    async def Configure(self, request: pb.ConfigureRequest, context: Context) -> pb.ConfigureResponse:
        """Begins an epoch. The Forward call of an older one ends with an error."""
        if request.epoch <= self._epoch.number:
            await _refuse(context, FrameRefused(f"epoch {request.epoch} is over, this is {self._epoch.number}"))
        self._epoch.ended.set()
        self._epoch = Epoch(request.epoch, request.next_address)
        await self._in_order(self._stepper.begin, request.epoch)
        return pb.ConfigureResponse()

    async def Forward(self, request_iterator: AsyncIterator[pb.Frame], context: Context) -> pb.ForwardSummary:
        """Computes frames until the sender closes the stream, the epoch ends or something is lost."""
        epoch = self._epoch
        if epoch.attached or epoch.ended.is_set() or not epoch.number:
            await _refuse(context, FrameRefused("this epoch has had its sender; configure the next one"))
        epoch.attached = True
        try:
            await self._run(epoch, request_iterator)
        except TriremeError as error:
            await _refuse(context, error)
        finally:
            await self._end(epoch)
        return pb.ForwardSummary(frames=self._stepper.progress.steps)

    async def Results(self, request: pb.ResultsRequest, context: Context) -> None:  # type: ignore[override]
        """Results of the epoch's steps, in order, until the epoch ends."""
        epoch = self._epoch
        if request.epoch != epoch.number:
            await _refuse(context, FrameRefused(f"epoch is {request.epoch}, expected {epoch.number}"))
        await context.send_initial_metadata(())  # tells the coordinator that the subscription stands
        while not epoch.ended.is_set() or not epoch.results.empty():
            if (result := await _next_result(epoch)) is not None:
                await context.write(result)

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        """How full and how busy the stage is. Taken between two steps, so that the books can be checked."""
        return await self._in_order(self._report)

    async def close(self) -> None:
        """Ends the epoch and the compute thread."""
        self._epoch.ended.set()
        await asyncio.to_thread(self._compute.shutdown)

    async def _run(self, epoch: Epoch, incoming: AsyncIterator[pb.Frame]) -> None:
        async with NextStage(epoch.next_address) as following:
            work = asyncio.ensure_future(self._pump(epoch, incoming, following))
            watch = [asyncio.ensure_future(epoch.ended.wait()), asyncio.ensure_future(following.lost())]
            try:
                await asyncio.wait({work, *watch}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise PipelineUnavailable("The next stage was lost, or the epoch is over.")
                work.result()
            finally:
                await _cancel(work, *watch)

    async def _pump(self, epoch: Epoch, incoming: AsyncIterator[pb.Frame], following: NextStage) -> None:
        async for frame in incoming:
            sampled = await self._in_order(self._stepper.step, frame, time.time_ns())
            if following.exists:
                await following.send(frame)
            else:
                epoch.results.put_nowait(_result(frame, sampled))

    async def _end(self, epoch: Epoch) -> None:
        epoch.attached = False
        epoch.ended.set()
        if epoch is self._epoch:  # else the next epoch has freed the slots already
            await asyncio.shield(self._in_order(self._stepper.model.kv.reset))

    async def _in_order(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs on the compute thread, after everything that was handed to it before."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, lambda: work(*args, **kwargs))

    def _report(self) -> pb.ReportResponse:
        kv, progress = self._stepper.model.kv, self._stepper.progress
        return pb.ReportResponse(
            epoch=progress.epoch,
            kv_pages_total=kv.pages,
            kv_pages_used=kv.pages_used,
            slots_used=kv.slots_used,
            integrity_error=kv.check_integrity(),
            rss_bytes=psutil.Process().memory_info().rss,
            steps=progress.steps,
            busy_ns=progress.busy_ns,
            attached=self.attached,
        )


def _result(frame: pb.Frame, sampled: list[Sampled]) -> pb.StepResult:
    tokens = [pb.SampledToken(slot=s.slot, position=s.position, token_id=s.token_id) for s in sampled]
    return pb.StepResult(step=frame.step, tokens=tokens, timings=frame.timings)


async def _next_result(epoch: Epoch) -> pb.StepResult | None:
    """The next result, or None when the epoch ends first."""
    item = asyncio.ensure_future(epoch.results.get())
    end = asyncio.ensure_future(epoch.ended.wait())
    try:
        await asyncio.wait({item, end}, return_when=asyncio.FIRST_COMPLETED)
        return item.result() if item.done() else None
    finally:
        await _cancel(item, end)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks and waits until they have ended; their outcomes have been looked at, or do not matter any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _refuse(context: Context, error: TriremeError) -> None:
    if not context.cancelled():  # else nobody is left to be told
        await context.abort(*to_grpc(error))
