"""The stage's gRPC service: which epoch it is, who may send and who may read.

One Forward call lasts as long as its epoch; when it ends, for whatever reason, the slots are freed, so that a
coordinator that vanished leaves nothing behind. Frames are `frame_flow.py`'s, KV pages `page_calls.py`'s. Knows nothing
of layers or kernels.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Never

import grpc
import psutil

from trireme_proto.errors import FrameRefused, TriremeError
from trireme_proto.status import to_grpc
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageServicer
from trireme_worker.compute_thread import ComputeThread
from trireme_worker.energy import EnergyMeter
from trireme_worker.epoch import Epoch
from trireme_worker.frame_flow import FrameFlow
from trireme_worker.link import EPOCH_KEY, Open, open_plainly
from trireme_worker.page_calls import PageCalls
from trireme_worker.probe import read_rate
from trireme_worker.stepper import Stepper

_EPOCH_LEAP = 1 << 40
"""Most by which an epoch may rise at once, so that no single call can use up all numbers: a million terms."""
_FIRST_EPOCH = 1 << 62
"""Most that a stage which has had no epoch yet takes: others may be far ahead of it."""
Context = grpc.aio.ServicerContext[Any, Any]


class StageService(StageServicer):
    """Serves one stage. All state is touched on the event loop, but for what the one compute thread works on."""

    def __init__(self, stepper: Stepper, opened: Open = open_plainly) -> None:
        """`opened`: how the next stages are reached."""
        self._stepper = stepper
        self._epoch = Epoch()
        self._compute = ComputeThread()
        self._flow = FrameFlow(
            lambda frame, arrived_ns: self._compute.in_order(stepper.step, frame, arrived_ns), opened
        )
        self._pages = PageCalls(stepper.pages, lambda: self._epoch)
        self._senders: set[asyncio.Task[Any]] = set()
        self._measuring = asyncio.Lock()
        self._energy = EnergyMeter()

    @property
    def attached(self) -> bool:
        """Whether frames come in right now."""
        return self._epoch.sender

    async def Configure(self, request: pb.ConfigureRequest, context: Context) -> pb.ConfigureResponse:
        """Begins an epoch. The Forward call of an older one ends with an error."""
        try:
            self._check_place(request)
        except FrameRefused as error:
            await _refuse(context, error)
        self._epoch.end()
        self._epoch = Epoch(request.epoch, request.next_address, request.last_address)
        await self._compute.in_order(self._stepper.begin, request.epoch, request.stage)
        return pb.ConfigureResponse(host=socket.gethostname(), process_id=os.getpid())

    async def Forward(self, request_iterator: AsyncIterator[pb.Frame], context: Context) -> pb.ForwardSummary:
        """Computes frames until the sender closes the stream, the epoch ends or something is lost."""
        try:
            async with self._sender(context) as epoch:
                frames = await self._flow.run(epoch, request_iterator)
        except TriremeError as error:
            await _refuse(context, error)
        return pb.ForwardSummary(frames=frames)

    async def Results(self, request: pb.ResultsRequest, context: Context) -> None:  # type: ignore[override]
        """Results of the epoch's steps, in order, until the epoch ends."""
        epoch = await self._read_epoch(request, context)
        if epoch.reader:
            await _refuse(context, FrameRefused("results have one reader"))
        epoch.reader = True
        await context.send_initial_metadata(())  # tells the coordinator that the subscription stands
        while (result := await epoch.results.get()) is not None:
            await context.write(result)

    async def Choices(self, request: pb.ResultsRequest, context: Context) -> None:  # type: ignore[override]
        """What the epoch's steps sample, in order, from now on and until the epoch ends."""
        epoch = await self._read_epoch(request, context)
        if epoch.chosen is not None or epoch.ended.is_set():
            await _refuse(context, FrameRefused("choices have one listener, the first stage"))
        epoch.chosen = asyncio.Queue()
        await context.send_initial_metadata(())
        while (choices := await epoch.chosen.get()) is not None:
            await context.write(choices)

    async def _read_epoch(self, request: pb.ResultsRequest, context: Context) -> Epoch:
        """The current epoch, if the request is for it and this is the last stage."""
        if request.epoch != self._epoch.number:
            await _refuse(context, FrameRefused(f"epoch is {request.epoch}, expected {self._epoch.number}"))
        if self._epoch.next_address:
            await _refuse(context, FrameRefused("only the last stage has results"))
        return self._epoch

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        """How full and how busy the stage is. Taken between two steps, so that the books can be checked."""
        return await self._compute.in_order(self._report)

    async def FindPages(self, request: pb.FindPagesRequest, context: Context) -> pb.FindPagesResponse:
        """How many of the pages the page store has. FrameRefused for another epoch, and for keys that are none."""
        try:
            return await self._pages.find(request)
        except FrameRefused as error:
            await _refuse(context, error)

    async def FetchPages(self, request: pb.FetchPagesRequest, context: Context) -> pb.FetchPagesResponse:
        """Reads pages into memory. FrameRefused as FindPages, and for a number that is in use."""
        try:
            return await self._pages.fetch(request)
        except FrameRefused as error:
            await _refuse(context, error)

    async def Pulse(self, request: pb.PulseRequest, context: Context) -> pb.PulseResponse:
        """Signs of life. Never waits for the compute thread."""
        progress = self._stepper.progress
        return pb.PulseResponse(
            epoch=self._epoch.number,
            steps=progress.steps,
            busy=self._compute.busy,
            progress=self._compute.done + (self._stepper.pulse & 0xFFFFFFFF),  # the kernels count in 32 bits
        )

    async def Measure(self, request: pb.MeasureRequest, context: Context) -> pb.MeasureResponse:
        """The memory's read rate, as long as nothing is computed meanwhile; one measurement at a time."""
        async with self._measuring:
            steps = self._stepper.progress.steps
            if self._compute.busy:
                return pb.MeasureResponse()
            rate = await asyncio.to_thread(read_rate, self._stepper.model.threads)
        return pb.MeasureResponse(read_bytes_per_s=rate if self._stepper.progress.steps == steps else 0.0)

    async def close(self) -> None:
        """Ends the epoch, its calls and the compute thread; after the server was stopped."""
        self._epoch.end()
        if self._senders:
            await asyncio.wait(self._senders)
        await asyncio.to_thread(self._compute.close)

    def _check_place(self, request: pb.ConfigureRequest) -> None:
        """FrameRefused for an epoch that is over, and for a place in the pipeline that the layers do not fit."""
        if request.epoch <= self._epoch.number:
            raise FrameRefused(f"epoch {request.epoch} is over, this is {self._epoch.number}")
        if request.epoch > (self._epoch.number + _EPOCH_LEAP if self._epoch.number else _FIRST_EPOCH):
            raise FrameRefused(f"epoch {request.epoch} is too far above {self._epoch.number}")
        model = self._stepper.model
        if model.first != (request.stage == 0) or model.last != (not request.next_address):
            raise FrameRefused(f"a stage with these layers cannot be stage {request.stage} of this pipeline")

    @asynccontextmanager
    async def _sender(self, context: Context) -> AsyncIterator[Epoch]:
        """The current epoch, with this call as its one sender. Afterwards the epoch is over and its slots are free."""
        epoch = self._epoch
        if not epoch.number or _epoch_of(context) != str(epoch.number):
            raise FrameRefused(f"the sender's epoch is not this stage's, {epoch.number}")
        if epoch.sender or epoch.ended.is_set():
            raise FrameRefused("this epoch has had its sender; configure the next one")
        epoch.sender = True
        self._remember_caller()
        try:
            yield epoch
        finally:
            epoch.sender = False
            epoch.end()
            if epoch is self._epoch:  # else the next epoch has freed the slots already
                await asyncio.shield(self._compute.in_order(self._stepper.reset))

    def _remember_caller(self) -> None:
        """Until it has ended: `close` must not take the compute thread away from it."""
        if (task := asyncio.current_task()) is not None:
            self._senders.add(task)
            task.add_done_callback(self._senders.discard)

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
            pages=self._pages.counters(),
            energy_uj=self._energy.microjoules() if self._energy.readable else None,
        )


def _epoch_of(context: Context) -> str | bytes | None:
    return dict(context.invocation_metadata() or ()).get(EPOCH_KEY)


async def _refuse(context: Context, error: TriremeError) -> Never:
    await context.abort(*to_grpc(error))
    raise error  # not reached: abort raises
