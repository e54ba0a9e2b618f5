"""Inference: Generate, Tokenize, Detokenize."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from trireme_coordinator.auth.identity import current
from trireme_coordinator.engine import Engine
from trireme_coordinator.scheduler import Finish
from trireme_coordinator.service import requests
from trireme_coordinator.service.calls import answered
from trireme_coordinator.service.opening import Opening
from trireme_coordinator.service.outbox import Piece, message
from trireme_coordinator.service.runs import Reader
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.store.tenants import shown
from trireme_coordinator.telemetry import Layers, RequestTrace, Telemetry
from trireme_coordinator.text import TextCodec
from trireme_proto.v1 import inference_pb2 as pb
from trireme_proto.v1.inference_pb2_grpc import InferenceServicer
from trireme_worker.logs import TRACE_ID

_AT_ONCE_SECONDS = 0.01
"""How long the last tokens of an answer may wait until they are stored; then they go ahead of its end."""
Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(InferenceServicer):
    """Serves one model through one engine."""

    def __init__(
        self,
        engine: Engine,
        codec: TextCodec,
        sessions: SessionGate,
        telemetry: Telemetry,
        bounds: requests.Bounds,
        *,
        model: str,
        eos_token_ids: frozenset[int],
        layers: Layers,
    ) -> None:
        self._codec, self._gate, self._telemetry, self._bounds, self._model = codec, sessions, telemetry, bounds, model
        self._recoveries = engine.recoveries
        self._opening = Opening(engine, codec, sessions, bounds, eos_token_ids, layers)

    @answered
    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:  # type: ignore[override]
        """See the service's definition in inference.proto."""
        asked = requests.read(request, self._bounds)
        caller = current()
        trace = self._telemetry.request(
            context.invocation_metadata() or (),
            model=self._model,
            request_id=asked.request_id,
            tenant=caller.tenant,
            sampling=asked.sampling,
            max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
            every_step=request.trace_steps,
            recoveries=self._recoveries,
        )
        caller.trace_id = trace.trace_id
        TRACE_ID.set(trace.trace_id)
        async with _traced(trace):
            reader = await self._opening.open(request, asked, trace)
            try:
                if not request.HasField("resume_index"):
                    caller.used(reader.record.answer_start - reader.record.prompt_start)
                await context.write(_first(reader, trace))
                await self._answer(reader, trace, context)
            finally:
                reader.leave(reader)

    @answered
    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """See the service's definition in inference.proto."""
        add_bos = request.add_bos if request.HasField("add_bos") else True
        # No more than fits the context: tokenizing takes a second a megabyte, and others are waiting.
        ids = await asyncio.to_thread(self._codec.encode, request.text, add_bos, self._bounds.context)
        return pb.TokenizeResponse(token_ids=ids)

    @answered
    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:
        """See the service's definition in inference.proto."""
        requests.check_token_ids(request.token_ids, self._bounds.vocabulary)
        return pb.DetokenizeResponse(text=await asyncio.to_thread(self._codec.decode, list(request.token_ids)))

    async def _answer(self, reader: Reader, trace: RequestTrace, context: Context) -> None:
        index = reader.index
        async for piece, reason in reader.outbox.pieces():
            left = piece
            if reason is None or not await self._gate.settle(reader.session_id, _AT_ONCE_SECONDS):
                await context.write(message(index, piece, None, None))
                current().used(len(piece.token_ids))
                index, left = index + len(piece.token_ids), Piece()
            if reason is not None:
                usage = await self._finish(reader, reason, trace)
                await context.write(message(index, left, reason, usage))
                current().used(len(left.token_ids))

    async def _finish(self, reader: Reader, reason: Finish, trace: RequestTrace) -> pb.Usage:
        await self._gate.settle(reader.session_id)
        usage = reader.usage()
        if reader.sequence is not None:
            trace.guessed(reader.sequence.drafted, reader.sequence.accepted)
        trace.finish(
            reason.value,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
        )
        return usage


def _first(reader: Reader, trace: RequestTrace) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        index=reader.index,
        session_id=shown(reader.session_id),
        request_id=reader.record.request_id,
        trace_id=trace.trace_id,
        seed=reader.record.seed,
    )


@asynccontextmanager
async def _traced(trace: RequestTrace) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:  # also a cancelled call: the span says how the request ended, the error goes on
        trace.fail(error)
        raise
