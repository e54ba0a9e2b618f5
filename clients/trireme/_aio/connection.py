"""A channel with the stubs on it, and how a single call is made. Knows nothing of what the messages mean.

The channel belongs to the event loop in which it is made, so it is made by the first call and not before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from trireme import _failures, _retry, _trace, _transport
from trireme_proto.errors import Cancelled
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.cluster_pb2_grpc import ClusterStub
from trireme_proto.v1.inference_pb2_grpc import InferenceStub
from trireme_proto.v1.sessions_pb2_grpc import SessionsStub

if TYPE_CHECKING:  # these exist for the type checker alone
    from trireme_proto.v1.cluster_pb2_grpc import ClusterAsyncStub
    from trireme_proto.v1.inference_pb2_grpc import InferenceAsyncStub
    from trireme_proto.v1.sessions_pb2_grpc import SessionsAsyncStub

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Call = grpc.aio.UnaryStreamCall[inference.GenerateRequest, inference.GenerateResponse]


@dataclass(frozen=True, slots=True)
class _Link:
    loop: asyncio.AbstractEventLoop
    channel: grpc.aio.Channel
    inference: InferenceAsyncStub
    sessions: SessionsAsyncStub
    cluster: ClusterAsyncStub


class Connection:
    """Connects with the first call, and again by itself after a loss."""

    def __init__(self, target: str | None, timeout: float | None) -> None:
        self.target = _transport.resolve(target)
        self.timeout = timeout
        self._open = True
        self._made: _Link | None = None

    @property
    def link(self) -> _Link:
        """Channel and stubs, for the running event loop."""
        if not self._open:
            raise RuntimeError("This client is closed.")
        loop = asyncio.get_running_loop()
        if self._made is None:
            channel = grpc.aio.insecure_channel(self.target, _transport.options(self.target))
            self._made = _Link(loop, channel, InferenceStub(channel), SessionsStub(channel), ClusterStub(channel))
        if self._made.loop is not loop:
            raise RuntimeError("This client belongs to another event loop; make one client for each loop.")
        return self._made

    async def unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Reply], request: Request, limit: float | None
    ) -> Reply:
        """One request, one reply, within so many seconds. Raises the typed error of a failure."""
        seconds = _retry.limit(limit, self.timeout)
        try:
            return await method(request, timeout=seconds, metadata=_trace.context())
        except grpc.aio.AioRpcError as failure:
            raise _failures.typed(failure, target=self.target, timeout=seconds) from failure
        except asyncio.CancelledError:
            raise_if_own_task_goes_on()
            raise

    def generate(self, request: inference.GenerateRequest, seconds: float | None) -> Call:
        """Starts a stream that may take so many seconds."""
        return self.link.inference.Generate(request, timeout=seconds, metadata=_trace.context())

    async def close(self) -> None:
        """Cancels what is under way. May be called again."""
        self._open = False
        if self._made is not None:
            await self._made.channel.close()


def raise_if_own_task_goes_on() -> None:
    """Called on CancelledError: raises Cancelled where the call was cancelled and the task that waits for it was not.

    grpc.aio raises CancelledError for both; only the second must end a task.
    """
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise Cancelled("The call was cancelled before its answer was complete.")
