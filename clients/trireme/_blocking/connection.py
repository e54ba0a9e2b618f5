"""A channel with the stubs on it, and how a single call is made. Knows nothing of what the messages mean."""

from __future__ import annotations

from typing import Protocol, TypeVar

import grpc

from trireme import _failures, _retry, _trace, _transport
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.cluster_pb2_grpc import ClusterStub
from trireme_proto.v1.inference_pb2_grpc import InferenceStub
from trireme_proto.v1.sessions_pb2_grpc import SessionsStub

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Call(Protocol):
    """A stream under way; `next` raises grpc.RpcError where it fails."""

    def __next__(self) -> inference.GenerateResponse: ...
    def cancel(self) -> bool: ...


class Connection:
    """Connects with the first call, and again by itself after a loss."""

    def __init__(self, target: str | None, timeout: float | None) -> None:
        self.target = _transport.resolve(target)
        self.timeout = timeout
        self._open = True
        self._channel = grpc.insecure_channel(self.target, _transport.options(self.target))
        self.inference = InferenceStub(self._channel)
        self.sessions = SessionsStub(self._channel)
        self.cluster = ClusterStub(self._channel)

    def unary(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Reply], request: Request, limit: float | None
    ) -> Reply:
        """One request, one reply, within so many seconds. Raises the typed error of a failure."""
        self._check_open()
        seconds = _retry.limit(limit, self.timeout)
        try:
            return method(request, timeout=seconds, metadata=_trace.context())
        except grpc.RpcError as failure:
            raise _failures.typed(failure, target=self.target, timeout=seconds) from failure

    def generate(self, request: inference.GenerateRequest, seconds: float | None) -> Call:
        """Starts a stream that may take so many seconds."""
        self._check_open()
        return self.inference.Generate(request, timeout=seconds, metadata=_trace.context())

    def close(self) -> None:
        """Cancels what is under way. May be called again."""
        self._open = False
        self._channel.close()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("This client is closed.")
