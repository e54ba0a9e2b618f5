"""The coordinator's end of the pipeline: micro-batches go to the first stage, results come from the last one.

Owns the two calls of an epoch and the channels to all stages. Knows nothing of requests; decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Never, Self

import grpc

from trireme_coordinator.scheduler import Batch, SamplingParams
from trireme_proto.errors import PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub
from trireme_worker.link import CHANNEL_OPTIONS, ForwardCall

_CONNECT_SECONDS = 10.0
_EXPLAIN_SECONDS = 1.0


class Pipeline:
    """Context manager: configures the stages at `addresses` (HOST:PORT, in order) for `epoch` and attaches to them.

    Entering raises PipelineUnavailable where a stage does not answer or does not want the epoch.
    """

    def __init__(self, addresses: Sequence[str], epoch: int) -> None:
        self.epoch = epoch
        self._addresses = list(addresses)
        self._channels: list[grpc.aio.Channel] = []
        self._forward: ForwardCall | None = None
        self._results: Any = None

    async def __aenter__(self) -> Self:
        self._channels = [grpc.aio.insecure_channel(a, CHANNEL_OPTIONS) for a in self._addresses]
        try:
            await self._attach()
        except BaseException as error:
            await self._close()
            if isinstance(error, grpc.aio.AioRpcError | TimeoutError):
                raise PipelineUnavailable("A stage does not answer, or refuses the new epoch.") from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._close()

    async def send(self, batch: Batch) -> None:
        """Hands a micro-batch to the first stage. Raises as `lost`."""
        await self._sender().send(frame_of(batch, self.epoch))

    async def receive(self) -> pb.StepResult:
        """The next step's result. Raises as `lost`."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            result = await self._results.read()
            if isinstance(result, pb.StepResult):
                return result
        with contextlib.suppress(TimeoutError):  # what the first stage says of the loss comes a moment later
            await asyncio.wait_for(self.lost(), _EXPLAIN_SECONDS)
        raise PipelineUnavailable("A stage ended its epoch.")

    async def lost(self) -> Never:
        """Waits for the loss of a stage: PipelineUnavailable, or FrameRefused when a stage refused a frame.

        The results need not end then: the last stage may not have been reached at all.
        """
        await self._sender().lost()

    async def reports(self) -> list[pb.ReportResponse | None]:
        """What each stage says about itself; None for one that does not answer."""
        calls = [StageStub(c).Report(pb.ReportRequest(), timeout=_CONNECT_SECONDS) for c in self._channels]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)  # closing the channels cancels them
        return [outcome if isinstance(outcome, pb.ReportResponse) else None for outcome in outcomes]

    async def _attach(self) -> None:
        """From the last stage to the first, so that each finds its next one at the new epoch."""
        stubs = [StageStub(channel) for channel in self._channels]
        following = [*self._addresses[1:], ""]
        for i in reversed(range(len(stubs))):
            last = self._addresses[-1] if i == 0 and len(stubs) > 1 else ""
            request = pb.ConfigureRequest(epoch=self.epoch, stage=i, next_address=following[i], last_address=last)
            await stubs[i].Configure(request, timeout=_CONNECT_SECONDS)
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


async def highest_epoch(addresses: Sequence[str]) -> int:
    """The highest epoch that any of the stages has seen: whoever set it, a new one must be above it.

    PipelineUnavailable where a stage does not answer.
    """
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(a, CHANNEL_OPTIONS)) for a in addresses]
        calls = [StageStub(c).Report(pb.ReportRequest(), timeout=_CONNECT_SECONDS) for c in channels]
        try:
            return max(report.epoch for report in await asyncio.gather(*calls))
        except grpc.aio.AioRpcError as error:
            raise PipelineUnavailable("A stage does not answer.") from error


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
        sent_ns=time.time_ns(),
    )


def _sampling(params: SamplingParams) -> pb.RowSampling:
    return pb.RowSampling(temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, seed=params.seed)
