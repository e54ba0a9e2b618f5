"""A channel with the stubs on it, and how a single call is made. Knows nothing of what the messages mean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc

from trireme import _retry, _trace, _transport
from trireme._addresses import Addresses
from trireme._authorization import Metadata, authorization
from trireme._lengths import SessionLengths
from trireme._question import Question
from trireme._security import Security
from trireme_proto.certificates import Certificates, channel_credentials
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.cluster_pb2_grpc import ClusterStub
from trireme_proto.v1.inference_pb2_grpc import InferenceStub
from trireme_proto.v1.sessions_pb2_grpc import SessionsStub
from trireme_proto.v1.traces_pb2_grpc import TracesStub

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Call(Protocol):
    """A stream under way; `next` raises grpc.RpcError where it fails."""

    def __next__(self) -> inference.GenerateResponse: ...
    def cancel(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Link:
    """A channel to one server, with the stubs on it."""

    channel: grpc.Channel
    inference: InferenceStub
    sessions: SessionsStub
    cluster: ClusterStub
    traces: TracesStub


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
        self._closed = threading.Event()
        self._security, self._shown = security, security.current
        self._exchange = threading.Lock()
        self._links = self._new_links()
        self._retired: list[Link] = []
        """Of certificates before; answers may still come over them. One without calls closes its connections."""

    def unary(
        self,
        pick: Callable[[Link], grpc.UnaryUnaryMultiCallable[Request, Reply]],
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
                reply = pick(self._link(place))(request, timeout=question.remaining(), metadata=self._metadata())
            except grpc.RpcError as failure:
                wait = question.wait_after(failure, place, forgiving=if_gone is not None)
                if wait is None and if_gone is not None:
                    return if_gone
            else:
                self.addresses.reached = True
                return reply
            self._closed.wait(wait or 0.0)

    def generate(self, request: inference.GenerateRequest, seconds: float | None) -> tuple[int, Call]:
        """Starts a stream that may take so many seconds; the index of its server, and the stream."""
        place = self.addresses.current
        return place, self._link(place).inference.Generate(request, timeout=seconds, metadata=self._metadata())

    def _metadata(self) -> Metadata:
        return (*self._authorization, *_trace.context())

    def close(self) -> None:
        """Cancels what is under way. May be called again."""
        self._closed.set()
        for link in [*self._links, *self._retired]:
            link.channel.close()

    def _link(self, place: int) -> Link:
        if self._closed.is_set():
            raise RuntimeError("This client is closed.")
        with self._exchange:
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
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, channel_credentials(certificates), options)
    return Link(channel, InferenceStub(channel), SessionsStub(channel), ClusterStub(channel), TracesStub(channel))
