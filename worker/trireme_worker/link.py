"""The sending half of one hop: this stage's Forward call to the next one. Also what every internal channel is opened
with.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc

from trireme_proto.errors import PipelineUnavailable
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", LIMITS.frame_bytes),
    ("grpc.max_send_message_length", LIMITS.frame_bytes),
    # Keepalive is off by default, and without it a silent partition hangs for ever.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a channel to a restarted stage must not inherit the old one's back-off
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS: list[tuple[str, Any]] = [
    *CHANNEL_OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 500),  # the pings above are welcome
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
]


class NextStage:
    """Context manager around the Forward call to `address` (HOST:PORT); an empty address: there is no next stage."""

    def __init__(self, address: str) -> None:
        self.exists = bool(address)
        self._address = address
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    async def __aenter__(self) -> Self:
        if self.exists:
            self._channel = grpc.aio.insecure_channel(self._address, CHANNEL_OPTIONS)  # inside the running loop
            self._call = StageStub(self._channel).Forward()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._channel is None:
            return
        if kind is None:
            await self._call.done_writing()
        else:
            self._call.cancel()
        await self._channel.close()

    async def send(self, frame: pb.Frame) -> None:
        """Hands a frame to the wire; waits while the next stage's window is full. PipelineUnavailable when it is
        lost.
        """
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise PipelineUnavailable("The next stage was lost.") from error

    async def lost(self) -> None:
        """Returns when the call has ended; never where there is no next stage."""
        if self.exists:
            await self._call.code()
        else:
            await asyncio.Event().wait()
