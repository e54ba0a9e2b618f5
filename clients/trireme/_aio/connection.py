"""A channel with the stubs on it, and how a single call is made. Knows nothing of what the messages mean.

The channel belongs to the event loop in which it is made, so it is made by the first call and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from trireme import _retry, _trace, _transport
from trireme._addresses import Addresses
from trireme._authorization import Metadata, authorization
from trireme._lengths import SessionLengths
from trireme._question import Question
from trireme._security import Security
from trireme_proto.certificates import Certificates, channel_credentials
from trireme_proto.errors import Cancelled
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.cluster_pb2_grpc import ClusterStub
from trireme_proto.v1.inference_pb2_grpc import InferenceStub
from trireme_proto.v1.sessions_pb2_grpc import SessionsStub
from trireme_proto.v1.traces_pb2_grpc import TracesStub

if TYPE_CHECKING:  # these exist for the type checker alone
    from trireme_proto.v1.cluster_pb2_grpc import ClusterAsyncStub
    from trireme_proto.v1.inference_pb2_grpc import InferenceAsyncStub
    from trireme_proto.v1.sessions_pb2_grpc import SessionsAsyncStub
    from trireme_proto.v1.traces_pb2_grpc import TracesAsyncStub

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Call = grpc.aio.UnaryStreamCall[inference.GenerateRequest, inference.GenerateResponse]


@dataclass(frozen=True, slots=True)
class Link:
    """A channel to one server, with the stubs on it."""

    channel: grpc.aio.Channel
    inference: InferenceAsyncStub
    sessions: SessionsAsyncStub
    cluster: ClusterAsyncStub
    traces: TracesAsyncStub


class Connection:
    """Connects with the first call, and again by itself, to wherever a server is, after a loss."""

    def __init__(
        self,
        target: str | Sequence[str] | None,
        timeout: float | None,
        patience: float,
        security: Security,
        *,
        api_key: str | None = None,
        insecure: bool = False,
    ) -> None:
        self.addresses = Addresses(_transport.resolve(target))
        self.timeout, self.patience = timeout, patience
        encrypted = security.files is not None
        own = authorization(api_key, self.addresses.targets, encrypted=encrypted, insecure=insecure)
        self._authorization = own.metadata
        self.lengths = SessionLengths()
        self._open = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._security, self._shown = security, security.current
        self._links: list[Link] = []
        self._retired: list[Link] = []
        """Of certificates before; answers may still come over them. One without calls closes its connections."""

    async def unary(
        self,
        pick: Callable[[Link], grpc.aio.UnaryUnaryMultiCallable[Request, Reply]],
        request: Request,
        limit: float | None,
        *,
        if_gone: Reply | None = None,
    ) -> Reply:
        """One request, one reply, within so many seconds. Raises the typed error of a failure. After a loss it is asked
        again, so that it must do no harm twice; `if_gone` is the reply where it was done the first time.
        """
        seconds = _retry.limit(limit, self.timeout)
        question = Question(self.addresses, seconds, self.patience)
        while True:
            place = self.addresses.current
            try:
                reply = await pick(self._link(place))(request, timeout=question.remaining(), metadata=self._metadata())
            except grpc.aio.AioRpcError as failure:
                wait = question.wait_after(failure, place, forgiving=if_gone is not None)
                if wait is None and if_gone is not None:
                    return if_gone
            except asyncio.CancelledError:
                raise_if_own_task_goes_on()
                raise
            else:
                self.addresses.reached = True
                return reply
            await asyncio.sleep(wait or 0.0)

    def generate(self, request: inference.GenerateRequest, seconds: float | None) -> tuple[int, Call]:
        """Starts a stream that may take so many seconds; the index of its server, and the stream."""
        place = self.addresses.current
        return place, self._link(place).inference.Generate(request, timeout=seconds, metadata=self._metadata())

    def _metadata(self) -> Metadata:
        return (*self._authorization, *_trace.context())

    async def close(self) -> None:
        """Cancels what is under way. May be called again."""
        self._open = False
        for link in [*self._links, *self._retired]:
            await link.channel.close()

    def _link(self, place: int) -> Link:
        """Channel and stubs, for the running event loop."""
        if not self._open:
            raise RuntimeError("This client is closed.")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._links = loop, self._new_links()
        if self._loop is not loop:
            raise RuntimeError("This client belongs to another event loop; make one client for each loop.")
        if self._security.current is not self._shown:
            self._retired += self._links
            self._links = self._new_links()
        return self._links[place]

    def _new_links(self) -> list[Link]:
        self._shown = self._security.current
        return [_link(target, self._shown) for target in self.addresses.targets]


def _link(target: str, certificates: Certificates | None) -> Link:
    options = _transport.options(target)
    if certificates is None:
        channel = grpc.aio.insecure_channel(target, options)
    else:
        channel = grpc.aio.secure_channel(target, channel_credentials(certificates), options)
    return Link(channel, InferenceStub(channel), SessionsStub(channel), ClusterStub(channel), TracesStub(channel))


def raise_if_own_task_goes_on() -> None:
    """Called on CancelledError: raises Cancelled where the call was cancelled and the task that waits for it was not.

    grpc.aio raises CancelledError for both; only the second must end a task.
    """
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise Cancelled("The call was cancelled before its answer was complete.")
