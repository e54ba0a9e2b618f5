"""The asynchronous stream of one answer. Reads messages; what they mean is the Answer's business."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import grpc

from trireme import _retry
from trireme._aio.connection import Connection, raise_if_own_task_goes_on
from trireme._answer import AnswerView
from trireme._exchange import Exchange
from trireme.results import Generation, TokenChunk
from trireme_proto.errors import Cancelled, Internal
from trireme_proto.v1 import inference_pb2 as inference


class AsyncGenerationStream(AnswerView):
    """An answer as it comes: iterate over its `TokenChunk`s, or take it whole with `result()`.

    The request is under way from the moment this object exists. As an async context manager it cancels the request when
    the block is left before the answer is complete. Iterating raises the errors of `trireme.errors`; a task that is
    cancelled while it waits gets its CancelledError, and the request is cancelled with it.
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
        self._cancelled = asyncio.Event()
        self._place, self._call = connection.generate(self._exchange.request(), seconds)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        while True:
            message = await self._read()
            if message is None:
                self._answer.check_complete()
                raise StopAsyncIteration
            chunk = self._take(message)
            if chunk is not None:
                return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    async def result(self) -> Generation:
        """Waits for the rest and returns the whole answer, chunks already taken included."""
        async for _ in self:
            pass
        return self._answer.generation()

    def cancel(self) -> None:
        """Stops the answer and frees what it held on the server; reading on raises Cancelled."""
        self._cancelled.set()
        self._call.cancel()

    def _take(self, message: inference.GenerateResponse) -> TokenChunk | None:
        try:
            return self._exchange.take(message)
        except Internal:
            self.cancel()
            raise

    async def _read(self) -> inference.GenerateResponse | None:
        """The next message; None at the end."""
        while True:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as failure:
                wait = self._exchange.wait_after(failure)
            except asyncio.CancelledError:
                self._call.cancel()
                raise_if_own_task_goes_on()
                raise
            else:
                return message if isinstance(message, inference.GenerateResponse) else None
            if wait is None:  # lost after its last message
                return None
            await self._again(wait)

    async def _again(self, wait: float) -> None:
        self._connection.addresses.leave(self._place)
        try:
            async with asyncio.timeout(wait):
                await self._cancelled.wait()
        except TimeoutError:
            self._place, self._call = self._connection.generate(self._exchange.request(), self._exchange.remaining())
        else:
            raise Cancelled("The call was cancelled before its answer was complete.")
