"""The coordinator's end of the pipeline: micro-batches go to the first stage, results come from the last one.

Owns the two calls of an epoch and the channels to all stages. Knows nothing of requests; decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Never, Self, TypeVar

import grpc

from trireme_coordinator.scheduler import Batch, SamplingParams
from trireme_coordinator.telemetry import STAGE_SERVICE, Process
from trireme_coordinator.vigilance import Patience
from trireme_coordinator.watch import Watch
from trireme_proto.errors import PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub
from trireme_worker.concurrency import first_to_end
from trireme_worker.link import ForwardCall, Open, open_plainly

_CONNECT_SECONDS = 10.0
_EXPLAIN_SECONDS = 1.0
_ANSWER_SECONDS = 0.25
"""How much later than it was asked to a stage may end a fetch: what has begun to arrive is read to its end."""
T = TypeVar("T")


class Pipeline:
    """Context manager: configures the stages at `addresses` (HOST:PORT, in order) for `epoch` and attaches to them.

    Entering raises StageLost where a stage is lost, PipelineUnavailable where one does not want the epoch. `patience`
    with each stage outlives the epoch. `opened`: how stages are reached.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        epoch: int,
        patience: dict[int, Patience] | None = None,
        opened: Open = open_plainly,
    ) -> None:
        self.epoch = epoch
        self._patience = {} if patience is None else patience
        self._watch = Watch([], {})
        self.addresses, self._opened = list(addresses), opened
        self.processes: list[Process] = []
        """Of the stages, in pipeline order; as they name themselves."""
        self._channels: list[grpc.aio.Channel] = []
        self._forward: ForwardCall | None = None
        self._results: Any = None
        self._under_way = 0

    async def __aenter__(self) -> Self:
        self._channels = [self._opened(a) for a in self.addresses]
        self._watch = Watch(self._channels, self._patience, lambda: self._under_way > 0)
        try:
            await first_to_end(self._attached(), self._watch.lost())
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._close()

    async def send(self, batch: Batch) -> None:
        """Hands a micro-batch to the first stage. Raises as `lost`."""
        await self._sender().send(frame_of(batch, self.epoch))
        self._under_way += 1

    async def receive(self) -> pb.StepResult:
        """The next step's result. Raises as `lost`."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            result = await self._results.read()
            if isinstance(result, pb.StepResult):
                self._under_way -= 1
                return result
        with contextlib.suppress(TimeoutError):  # what the first stage says of the loss comes a moment later
            await asyncio.wait_for(self.lost(), _EXPLAIN_SECONDS)
        raise PipelineUnavailable("A stage ended its epoch.")

    async def lost(self) -> Never:
        """Waits for the loss of a stage: PipelineUnavailable, or FrameRefused when a stage refused a frame.

        The results need not end then: the last stage may not have been reached at all.
        """
        await self._sender().lost()

    async def watched(self) -> Never:
        """Waits until a stage gives no sign of life any more, or does not get on: StageLost."""
        await self._watch.lost()

    async def blame(self) -> None:
        """After a loss: StageLost where it was that of a stage's process."""
        await self._watch.examine()

    async def reports(self, seconds: float = _CONNECT_SECONDS) -> list[pb.ReportResponse | None]:
        """What each stage says about itself; None for one that does not answer in time."""
        outcomes = await asyncio.gather(*(_report(c, seconds) for c in self._channels), return_exceptions=True)
        return [outcome if isinstance(outcome, pb.ReportResponse) else None for outcome in outcomes]

    async def measure(self, stage: int, seconds: float) -> float:
        """Bytes a second at which a stage can read its memory; 0 where it computes meanwhile, or does not say."""
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):  # the latter: the channel is closed
            answer = await StageStub(self._channels[stage]).Measure(pb.MeasureRequest(), timeout=seconds)
            return float(answer.read_bytes_per_s)
        return 0.0

    async def find_pages(self, keys: Sequence[bytes], seconds: float) -> list[pb.FindPagesResponse]:
        """How many of these KV pages each stage could fetch. PipelineUnavailable where one does not say in time."""
        request = pb.FindPagesRequest(epoch=self.epoch, keys=keys)
        return await _all([StageStub(c).FindPages(request, timeout=seconds) for c in self._channels])

    async def fetch_pages(
        self, fetch: int, first_page: int, keys: Sequence[bytes], seconds: float
    ) -> list[pb.FetchPagesResponse]:
        """Has every stage read pages for a later frame, for so long at most. PipelineUnavailable where one does not say
        in time how many it holds; others may hold them then.
        """
        request = pb.FetchPagesRequest(epoch=self.epoch, fetch=fetch, first_page=first_page, keys=keys, seconds=seconds)
        within = seconds + _ANSWER_SECONDS
        return await _all([StageStub(c).FetchPages(request, timeout=within) for c in self._channels])

    async def _attached(self) -> None:
        try:
            await self._attach()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            await self.blame()
            raise PipelineUnavailable("A stage does not answer, or refuses the new epoch.") from error

    async def _attach(self) -> None:
        """From the last stage to the first, so that each finds its next one at the new epoch."""
        stubs = [StageStub(channel) for channel in self._channels]
        following, configured = [*self.addresses[1:], ""], list[pb.ConfigureResponse]()
        for i in reversed(range(len(stubs))):
            last = self.addresses[-1] if i == 0 and len(stubs) > 1 else ""
            request = pb.ConfigureRequest(epoch=self.epoch, stage=i, next_address=following[i], last_address=last)
            configured.insert(0, await stubs[i].Configure(request, timeout=_CONNECT_SECONDS))
        self.processes = [_process(i, each) for i, each in enumerate(configured)]
        self._results = stubs[-1].Results(pb.ResultsRequest(epoch=self.epoch))
        await asyncio.wait_for(self._results.initial_metadata(), _CONNECT_SECONDS)
        self._forward = ForwardCall(self._channels[0], self.epoch)

    def _sender(self) -> ForwardCall:
        if self._forward is None:
            raise ValueError("the pipeline has not been entered")
        return self._forward

    async def _close(self) -> None:
        for call in (self._forward, self._results):
            if call is not None:
                call.cancel()
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def highest_epoch(addresses: Sequence[str], opened: Open = open_plainly) -> int:
    """The highest epoch that any of the stages has seen: whoever set it, a new one must be above it.

    StageLost where a stage does not answer.
    """
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(opened(a)) for a in addresses]
        return max(await Watch(channels, {}).examine())


async def _all(calls: Sequence[Awaitable[T]]) -> list[T]:
    """What all stages answer."""
    try:
        return await asyncio.gather(*calls)
    except grpc.aio.AioRpcError as error:
        raise PipelineUnavailable("A stage does not say what it has of the page store.") from error


async def _report(channel: grpc.aio.Channel, seconds: float) -> pb.ReportResponse:
    """A coroutine of its own, since a call on a channel that is closed fails before there is anything to await."""
    return await StageStub(channel).Report(pb.ReportRequest(), timeout=seconds)


def frame_of(batch: Batch, epoch: int) -> pb.Frame:
    """The frame for the first stage."""
    rows = [
        pb.Row(
            slot=row.slot,
            position=row.position,
            count=row.count,
            sampling=_sampling(row.sequence.sampling) if row.samples else None,
            drafts=len(row.drafts),
            follows=row.follows,
        )
        for row in batch.rows
    ]
    return pb.Frame(
        epoch=epoch,
        step=batch.step,
        share=[pb.Share(slot=s.slot, from_slot=s.from_slot, pages=s.pages) for s in batch.share],
        release=batch.release,
        rows=rows,
        token_ids=batch.token_ids,
        restore=[pb.Restore(slot=r.slot, fetch=r.fetch, first_page=r.first_page, pages=r.pages) for r in batch.restore],
        forget=batch.forget,
        save=[pb.Save(slot=s.slot, first_page=s.first_page, keys=s.keys) for s in batch.save],
        sent_ns=time.time_ns(),
    )


def _process(stage: int, named: pb.ConfigureResponse) -> Process:
    instance = f"stage-{stage}@{named.host}:{named.process_id}"
    return Process(STAGE_SERVICE, instance, named.host, named.process_id)


def _sampling(params: SamplingParams) -> pb.RowSampling:
    return pb.RowSampling(temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, seed=params.seed)
