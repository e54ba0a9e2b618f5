"""Inference: Generate, Tokenize, Detokenize."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc

from trireme_coordinator.engine import Engine
from trireme_coordinator.scheduler import Finish, Sequence
from trireme_coordinator.service import requests
from trireme_coordinator.service.calls import answered
from trireme_coordinator.service.generation import Generation, SessionLog, message
from trireme_coordinator.service.sessions import Held, SessionGate
from trireme_coordinator.telemetry import Layers, RequestTrace, Telemetry
from trireme_coordinator.text import StopMatcher, TextCodec
from trireme_proto.errors import PipelineUnavailable
from trireme_proto.v1 import inference_pb2 as pb
from trireme_proto.v1.inference_pb2_grpc import InferenceServicer

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
        self._engine, self._codec, self._sessions, self._telemetry = engine, codec, sessions, telemetry
        self._bounds, self._model, self._eos, self._layers = bounds, model, eos_token_ids, layers

    @answered
    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:  # type: ignore[override]
        """See the service's definition in inference.proto."""
        asked = requests.read(request, self._bounds)
        trace = self._telemetry.request(
            context.invocation_metadata() or (), model=self._model, request_id=asked.request_id, sampling=asked.sampling
        )
        async with _traced(trace), self._session(request) as session:
            sequence, generation = await self._prepare(request, asked, session, trace)
            trace.queued()
            self._submit(sequence, generation)
            session.begun = True
            try:
                await context.write(_first(session, asked, trace))
                await self._answer(sequence, generation, trace, context)
            finally:
                self._engine.drop(sequence)

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

    def _session(self, request: pb.GenerateRequest) -> AbstractAsyncContextManager[Held]:
        return self._sessions.hold(request.session_id) if request.session_id else self._sessions.hold_new()

    async def _prepare(
        self, request: pb.GenerateRequest, asked: requests.Asked, session: Held, trace: RequestTrace
    ) -> tuple[Sequence, Generation]:
        """What the engine computes, and who listens to it."""
        prompt = await self._prompt(request, session.tokens)
        trace.tokenized()
        tokens = [*session.tokens, *prompt]
        most = requests.max_tokens(request, self._bounds, len(tokens))
        sequence = Sequence(tokens, asked.sampling, most, self._ends(request), session.session_id)
        sequence.priority = asked.priority
        log = SessionLog(self._sessions.writer, session.session_id, len(session.tokens), prompt)
        stops = StopMatcher(asked.stops)
        return sequence, Generation(self._codec.stream(tokens), stops, trace, log, self._layers)

    def _ends(self, request: pb.GenerateRequest) -> frozenset[int]:
        return frozenset() if request.ignore_eos else self._eos

    async def _prompt(self, request: pb.GenerateRequest, earlier: list[int]) -> list[int]:
        """The prompt's tokens; a text at the start of a session gets the begin-of-text token in front."""
        if request.WhichOneof("prompt") == "token_ids":
            return list(request.token_ids.ids)
        room = self._bounds.context - len(earlier) - 1  # one is left for the answer
        return await asyncio.to_thread(self._codec.encode, request.text, not earlier, room)

    def _submit(self, sequence: Sequence, generation: Generation) -> None:
        if not self._engine.started:
            raise PipelineUnavailable("The stages are still starting; try again in a few seconds.", retry_after=2.0)
        self._engine.submit(sequence, generation)

    async def _answer(self, sequence: Sequence, generation: Generation, trace: RequestTrace, context: Context) -> None:
        index = 0
        async for piece, reason in generation.pieces():
            usage = None if reason is None else await self._finish(sequence, reason, trace)
            await context.write(message(index, piece, reason, usage))
            index += len(piece.token_ids)

    async def _finish(self, sequence: Sequence, reason: Finish, trace: RequestTrace) -> pb.Usage:
        await self._sessions.settle(sequence.session_id)
        usage = pb.Usage(
            prompt_tokens=sequence.prompt_length,
            completion_tokens=sequence.generated,
            cached_tokens=sequence.cached,
        )
        trace.guessed(sequence.drafted, sequence.accepted)
        if (looked := sequence.restored) is not None:
            trace.restored(looked.found, looked.pages, looked.bytes, looked.seconds)
        trace.finish(
            reason.value,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
        )
        return usage


def _first(session: Held, asked: requests.Asked, trace: RequestTrace) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        session_id=session.session_id,
        request_id=asked.request_id,
        trace_id=trace.trace_id,
        seed=asked.sampling.seed,
    )


@asynccontextmanager
async def _traced(trace: RequestTrace) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:  # also a cancelled call: the span says how the request ended, the error goes on
        trace.fail(error)
        raise
