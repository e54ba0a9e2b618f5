"""The stage's gRPC service: takes frames in order, has them computed off the event loop, hands them to the next stage.

Owns the calls of an epoch. One Forward call lasts as long as its epoch; when it ends, for whatever reason, the slots
are freed, so that a coordinator that vanished leaves nothing behind. A lost neighbour ends the call with an error,
which travels up the pipeline, stage by stage, to the coordinator. Knows nothing of layers or kernels.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, Never, ParamSpec, TypeVar

import grpc
import psutil

from trireme_proto.errors import FrameRefused, PipelineUnavailable, TriremeError
from trireme_proto.limits import LIMITS
from trireme_proto.status import to_grpc
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageServicer
from trireme_worker.batch import Sampled
from trireme_worker.choices import Choices
from trireme_worker.concurrency import first_to_end
from trireme_worker.frames import read_keys
from trireme_worker.link import EPOCH_KEY, ForwardCall, choices_of, forward_to
from trireme_worker.stepper import Stepper

_EPOCH_LEAP = 1 << 40
"""Most by which an epoch may rise at once, so that no single call can use up all numbers: a million terms."""
_FIRST_EPOCH = 1 << 62
"""Most that a stage which has had no epoch yet takes: others may be far ahead of it."""
_EXPLAIN_SECONDS = 1.0
Context = grpc.aio.ServicerContext[Any, Any]
P = ParamSpec("P")
R = TypeVar("R")
Outcome = asyncio.Future[list[Sampled]]
"""The tokens that a frame's computation samples."""


class Epoch:
    """The calls of one building of the pipeline: a sender of frames, and on the last stage a reader of results."""

    def __init__(self, number: int = 0, next_address: str = "", last_address: str = "") -> None:
        self.number, self.next_address, self.last_address = number, next_address, last_address
        self.sender = False
        """Whether frames come in right now."""
        self.reader = False
        """Whether somebody has asked for the results."""
        self.ended = asyncio.Event()
        self.results: asyncio.Queue[pb.StepResult | None] = asyncio.Queue()
        """None comes last, as in `chosen`."""
        self.chosen: asyncio.Queue[pb.StepResult | None] | None = None
        """For the first stage, once it listens."""
        self.choices = Choices()
        """On the first stage: what it heard."""

    def end(self) -> None:
        """No frame is computed any more; the results that are there can still be read."""
        if not self.ended.is_set():
            self.ended.set()
            self._tell(None, None)

    def sampled(self, frame: pb.Frame, sampled: list[Sampled]) -> None:
        """The last stage has computed a frame."""
        tokens = [pb.SampledToken(slot=s.slot, position=s.position, token_id=s.token_id) for s in sampled]
        self._tell(
            pb.StepResult(step=frame.step, tokens=tokens, timings=frame.timings, sent_ns=frame.sent_ns),
            pb.StepResult(step=frame.step, tokens=tokens),
        )

    def _tell(self, result: pb.StepResult | None, choices: pb.StepResult | None) -> None:
        if self.chosen is not None:
            self.chosen.put_nowait(choices)
        self.results.put_nowait(result)

    async def over(self) -> Never:
        """PipelineUnavailable when the epoch ends."""
        await self.ended.wait()
        raise PipelineUnavailable("This epoch is over.")


class StageService(StageServicer):
    """Serves one stage. All state is touched on the event loop, but for what the one compute thread works on."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._epoch = Epoch()
        self._taken = self._done = 0  # pieces of work of the compute thread, and written by it alone
        self._compute = ThreadPoolExecutor(1, "stage")  # one: frames are computed in the order in which they came
        self._senders: set[asyncio.Task[Any]] = set()

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
        await self._in_order(self._stepper.begin, request.epoch, request.stage)
        return pb.ConfigureResponse(host=socket.gethostname(), process_id=os.getpid())

    async def Forward(self, request_iterator: AsyncIterator[pb.Frame], context: Context) -> pb.ForwardSummary:
        """Computes frames until the sender closes the stream, the epoch ends or something is lost."""
        try:
            async with self._sender(context) as epoch:
                frames = await self._run(epoch, request_iterator)
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
        return await self._in_order(self._report)

    async def FindPages(self, request: pb.FindPagesRequest, context: Context) -> pb.FindPagesResponse:
        """How many of the pages the page store has. FrameRefused for another epoch, and for keys that are none."""
        store, keys = self._stepper.pages, await self._page_keys(request, context)
        if store is None:
            return pb.FindPagesResponse()
        pages = await asyncio.get_running_loop().run_in_executor(store.readers, store.find, keys)
        return pb.FindPagesResponse(pages=pages, page_bytes=store.page_bytes, bytes_per_s=store.bytes_per_s())

    async def FetchPages(self, request: pb.FetchPagesRequest, context: Context) -> pb.FetchPagesResponse:
        """Reads pages into memory. FrameRefused as FindPages, and for a number that is in use."""
        store, keys = self._stepper.pages, await self._page_keys(request, context)
        if store is None:
            return pb.FetchPagesResponse()
        work = partial(store.fetch, request.fetch, request.first_page, keys, min(request.seconds, LIMITS.fetch_seconds))
        try:
            pages, seconds = await asyncio.get_running_loop().run_in_executor(store.readers, work)
        except FrameRefused as error:
            await _refuse(context, error)
        if request.epoch != self._epoch.number or self._epoch.ended.is_set():
            store.forget(request.fetch)  # it began before the epoch ended, which has freed only what was there
            pages = 0
        return pb.FetchPagesResponse(pages=pages, bytes=pages * store.page_bytes, seconds=seconds)

    async def _page_keys(
        self, request: pb.FindPagesRequest | pb.FetchPagesRequest, context: Context
    ) -> Sequence[bytes]:
        if request.epoch != self._epoch.number or self._epoch.ended.is_set():
            await _refuse(context, FrameRefused(f"epoch is {request.epoch}, expected {self._epoch.number}"))
        try:
            return read_keys(request.keys)
        except FrameRefused as error:
            await _refuse(context, error)

    async def Pulse(self, request: pb.PulseRequest, context: Context) -> pb.PulseResponse:
        """Signs of life. Never waits for the compute thread."""
        progress = self._stepper.progress
        return pb.PulseResponse(
            epoch=self._epoch.number,
            steps=progress.steps,
            busy=self._taken > self._done,
            progress=self._done + (self._stepper.pulse & 0xFFFFFFFF),  # the kernels count in 32 bits
        )

    async def close(self) -> None:
        """Ends the epoch, its calls and the compute thread; after the server was stopped."""
        self._epoch.end()
        if self._senders:
            await asyncio.wait(self._senders)
        await asyncio.to_thread(self._compute.shutdown)

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
                await asyncio.shield(self._in_order(self._stepper.reset))

    def _remember_caller(self) -> None:
        """Until it has ended: `close` must not take the compute thread away from it."""
        if (task := asyncio.current_task()) is not None:
            self._senders.add(task)
            task.add_done_callback(self._senders.discard)

    async def _run(self, epoch: Epoch, incoming: AsyncIterator[pb.Frame]) -> int:
        if not epoch.next_address:
            return await first_to_end(self._pump(epoch, incoming, None), epoch.over())
        async with forward_to(epoch.next_address, epoch.number) as following:
            if not epoch.last_address:
                return await first_to_end(self._pump(epoch, incoming, following), epoch.over(), following.lost())
            async with choices_of(epoch.last_address, epoch.number) as choices:
                return await first_to_end(
                    self._pump(epoch, incoming, following), epoch.over(), following.lost(), _heard(epoch, choices)
                )

    async def _pump(self, epoch: Epoch, incoming: AsyncIterator[pb.Frame], following: ForwardCall | None) -> int:
        """Computes what comes in and hands it on, to the next stage or to the reader; returns the number of frames."""
        frames = 0
        async with aclosing(self._begun(epoch, incoming)) as begun:
            async for frame, outcome in begun:
                sampled = await outcome
                if following is None:
                    epoch.sampled(frame, sampled)
                else:
                    await following.send(frame)
                frames += 1
        if following is not None:
            await following.finish()
        return frames

    async def _begun(
        self, epoch: Epoch, incoming: AsyncIterator[pb.Frame]
    ) -> AsyncGenerator[tuple[pb.Frame, Outcome], None]:
        """Frames, each with what will come of it. A frame is read and handed to the compute thread while the one before
        is computed: else it would wait at its sender, whose stage would wait with it, and the compute thread for it.
        """

        async def begin() -> tuple[pb.Frame, Outcome] | None:
            frame = await anext(incoming, None)  # no `aiter`: gRPC's warns when it is made and then never asked
            if frame is None:
                return None
            arrived_ns = time.time_ns()
            if epoch.last_address:
                await epoch.choices.fill(frame)
            return frame, asyncio.ensure_future(self._step(frame, arrived_ns))

        coming = asyncio.ensure_future(begin())
        try:
            while (started := await coming) is not None:
                coming = asyncio.ensure_future(begin())
                yield started
        finally:
            await _abandon(coming)

    async def _step(self, frame: pb.Frame, arrived_ns: int) -> list[Sampled]:
        return await self._in_order(self._stepper.step, frame, arrived_ns)

    async def _in_order(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs on the compute thread, after everything that was handed to it before."""
        return await asyncio.get_running_loop().run_in_executor(
            self._compute, partial(self._counted, work), args, kwargs
        )

    def _counted(self, work: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        self._taken += 1
        try:
            return work(*args, **kwargs)
        finally:
            self._done += 1

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
            pages=self._page_counters(),
        )

    def _page_counters(self) -> pb.PageCounters:
        store = self._stepper.pages
        if store is None:
            return pb.PageCounters()
        waiting = {"waiting_bytes": store.waiting_bytes, "fetched_bytes": store.fetched_bytes}
        return pb.PageCounters(**asdict(store.counters), **waiting)


async def _heard(epoch: Epoch, choices: AsyncIterator[pb.StepResult]) -> Never:
    """Listens to the last stage. Where that ends, what it says of the reason comes up the pipeline a moment later."""
    try:
        await epoch.choices.listen(choices)
    except (PipelineUnavailable, grpc.aio.AioRpcError):
        await asyncio.sleep(_EXPLAIN_SECONDS)
        raise


async def _abandon(coming: asyncio.Future[tuple[pb.Frame, Outcome] | None]) -> None:
    """Ends the reading of a frame, and its computation if that has not begun; what they come to does not matter."""
    coming.cancel()
    (found,) = await asyncio.gather(coming, return_exceptions=True)
    if isinstance(found, tuple):
        found[1].cancel()
        await asyncio.gather(found[1], return_exceptions=True)


def _epoch_of(context: Context) -> str | bytes | None:
    return dict(context.invocation_metadata() or ()).get(EPOCH_KEY)


async def _refuse(context: Context, error: TriremeError) -> Never:
    await context.abort(*to_grpc(error))
    raise error  # not reached: abort raises
