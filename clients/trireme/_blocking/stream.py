"""The blocking stream of one answer. Reads messages; what they mean is the Answer's business."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import grpc

from trireme import _retry
from trireme._answer import AnswerView
from trireme._blocking.connection import Connection
from trireme._exchange import Exchange
from trireme.results import Generation, TokenChunk
from trireme_proto.errors import Cancelled, Internal
from trireme_proto.v1 import inference_pb2 as inference


class GenerationStream(AnswerView):
    """An answer as it comes: iterate over its `TokenChunk`s, or take it whole with `result()`.

    The request is under way from the moment this object exists. As a context manager it cancels the request when the
    block is left before the answer is complete. Iterating raises the errors of `trireme.errors`.
    """

    def __init__(
        self, connection: Connection, request: inference.GenerateRequest, *, timeout: float | None, retries: int
    ) -> None:
        seconds = _retry.limit(timeout, connection.timeout)
        self._connection = connection
        self._exchange = Exchange(
            request,
            addresses=connection.addresses,
            timeout=seconds,
            retries=retries,
            patience=connection.patience,
            lengths=connection.lengths,
        )
        self._answer = self._exchange.answer
        self._cancelled = threading.Event()
        self._place, self._call = connection.generate(self._exchange.request(), seconds)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenChunk:
        while True:
            message = self._read()
            if message is None:
                self._answer.check_complete()
                raise StopIteration
            chunk = self._take(message)
            if chunk is not None:
                return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def result(self) -> Generation:
        """Waits for the rest and returns the whole answer, chunks already taken included."""
        for _ in self:
            pass
        return self._answer.generation()

    def cancel(self) -> None:
        """Stops the answer and frees what it held on the server; reading on raises Cancelled. From any thread."""
        self._cancelled.set()
        self._call.cancel()

    def _take(self, message: inference.GenerateResponse) -> TokenChunk | None:
        try:
            return self._exchange.take(message)
        except Internal:
            self.cancel()
            raise

    def _read(self) -> inference.GenerateResponse | None:
        """The next message; None at the end."""
        while True:
            try:
                return next(self._call, None)
            except grpc.RpcError as failure:
                wait = self._exchange.wait_after(failure)
            if wait is None:  # lost after its last message
                return None
            self._again(wait)

    def _again(self, wait: float) -> None:
        self._connection.addresses.leave(self._place)
        if self._cancelled.wait(wait):
            raise Cancelled("The call was cancelled before its answer was complete.")
        self._place, self._call = self._connection.generate(self._exchange.request(), self._exchange.remaining())
        if self._cancelled.is_set():  # by another thread, in between
            self._call.cancel()
