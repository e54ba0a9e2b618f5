"""One hop of the pipeline, seen from its sender: the Forward call to a stage, and what every internal channel is opened
with.

A Forward call names its epoch in its metadata, so that a late call of an older epoch cannot take a newer one's place.
Knows nothing of what frames hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Never

import grpc

from trireme_proto.errors import FrameRefused, PipelineUnavailable, TriremeError
from trireme_proto.limits import LIMITS
from trireme_proto.status import from_grpc
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub

EPOCH_KEY = "trireme-epoch"

_BOTH_ENDS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", LIMITS.frame_bytes),
    ("grpc.max_send_message_length", LIMITS.frame_bytes),
    # Keepalive is off by default, and without it a silent partition hangs for ever.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),  # a minute by default; gRPC 1.85 heeds it, and not the one above
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    *_BOTH_ENDS,
    ("grpc.use_local_subchannel_pool", 1),  # a channel to a restarted stage must not inherit the old one's back-off
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS: list[tuple[str, Any]] = [
    *_BOTH_ENDS,
    ("grpc.http2.min_ping_interval_without_data_ms", 500),  # the pings above are welcome
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
]


Open = Callable[[str], grpc.aio.Channel]
"""How a channel to the stage at HOST:PORT is opened."""


def open_plainly(address: str) -> grpc.aio.Channel:
    """Without TLS: for stages on one machine."""
    return grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)


class ForwardCall:
    """The sending side of a Forward call, begun at once."""

    def __init__(self, channel: grpc.aio.Channel, epoch: int) -> None:
        self._call: Any = StageStub(channel).Forward(metadata=((EPOCH_KEY, str(epoch)),))

    async def send(self, frame: pb.Frame) -> None:
        """Hands a frame to the wire when the receiver's window has room. Raises as `lost` when the call is over."""
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self.lost()

    async def finish(self) -> None:
        """Says that there are no more frames; returns when all have been computed. Raises as `lost`."""
        await self._call.done_writing()
        await self._summary()

    async def lost(self) -> Never:
        """Waits for the end of the call, which comes unasked only when something is wrong: FrameRefused where a stage
        said so, else PipelineUnavailable.
        """
        await self._summary()
        raise PipelineUnavailable("A stage ended its call.")

    def cancel(self) -> None:
        """Ends the call; nothing happens where it has ended."""
        self._call.cancel()

    async def _summary(self) -> None:
        try:
            await self._call
        except grpc.aio.AioRpcError as error:
            raise _loss(error) from error


@asynccontextmanager
async def forward_to(address: str, epoch: int, opened: Open = open_plainly) -> AsyncIterator[ForwardCall]:
    """A ForwardCall to the stage at `address` (HOST:PORT), on a channel of its own. Leaving cancels it if it runs."""
    async with opened(address) as channel:
        call = ForwardCall(channel, epoch)
        try:
            yield call
        finally:
            call.cancel()


@asynccontextmanager
async def choices_of(
    address: str, epoch: int, opened: Open = open_plainly
) -> AsyncIterator[AsyncIterator[pb.StepResult]]:
    """What the last stage, at `address` (HOST:PORT), samples from here on, on a channel of its own. Raises
    PipelineUnavailable when the call is lost; leaving cancels it.
    """
    async with opened(address) as channel:
        call: Any = StageStub(channel).Choices(pb.ResultsRequest(epoch=epoch))
        try:
            await call.initial_metadata()  # the subscription stands: nothing sampled after this is missed
            yield call
        except grpc.aio.AioRpcError as error:
            raise _loss(error) from error
        finally:
            call.cancel()


def _loss(error: grpc.RpcError) -> TriremeError:
    """What a stage says it refused, as it said it; anything else is a stage that was lost."""
    typed = from_grpc(error)
    return typed if isinstance(typed, FrameRefused) else PipelineUnavailable("A stage was lost.")
