"""A coordinator's public service over stages in this process: real gRPC, a real session store, no Ray.

async with coordinator(local, store) as one:
    heard = await one.hear(request(...), leave_after=3)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from tests.support.pipeline import LocalPipeline

from trireme_coordinator.service.inference import InferenceService
from trireme_coordinator.service.requests import Bounds
from trireme_coordinator.service.session_service import SessionsService
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.store import ModelIdentity, Owner, RequestStore, SessionWriter
from trireme_coordinator.telemetry import Telemetry, setup_telemetry
from trireme_coordinator.text import TextCodec
from trireme_proto.status import from_grpc
from trireme_proto.v1 import inference_pb2 as pb
from trireme_proto.v1 import sessions_pb2 as sessions
from trireme_proto.v1.inference_pb2_grpc import InferenceStub, add_InferenceServicer_to_server
from trireme_proto.v1.sessions_pb2_grpc import SessionsStub, add_SessionsServicer_to_server
from trireme_worker.pack import Pack


@dataclass
class Heard:
    """What a call was given."""

    first: pb.GenerateResponse = field(default_factory=pb.GenerateResponse)
    index: int = -1
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: int = 0
    usage: pb.Usage | None = None

    def take(self, message: pb.GenerateResponse) -> None:
        if self.index < 0:
            self.first, self.index = message, message.index
        assert message.index == self.index + len(self.token_ids)
        self.token_ids += message.token_ids
        self.text += message.text
        if message.HasField("finish_reason"):
            self.finish, self.usage = message.finish_reason, message.usage


class Stream:
    """A Generate call."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]) -> None:
        self.call, self.heard = call, Heard()

    async def until(self, tokens: int) -> Heard:
        """Reads on until there are so many tokens, the first message at least. A typed error where the call fails."""
        while self.heard.index < 0 or len(self.heard.token_ids) < tokens:
            if not await self.once():
                break
        return self.heard

    async def end(self) -> Heard:
        """Reads to the end."""
        while await self.once():
            pass
        return self.heard

    async def once(self) -> bool:
        try:
            message = await self.call.read()
        except grpc.aio.AioRpcError as error:
            raise from_grpc(error) from None
        if message is grpc.aio.EOF:
            return False
        self.heard.take(message)
        return True


class Coordinator:
    """One coordinator, and a client of it."""

    def __init__(self, local: LocalPipeline, store: RequestStore, gate: SessionGate, channel: grpc.aio.Channel) -> None:
        self.engine, self.store, self.gate = local.engine, store, gate
        self._inference, self._sessions = InferenceStub(channel), SessionsStub(channel)

    def send(self, request: pb.GenerateRequest) -> Stream:
        """Begins a call."""
        return Stream(self._inference.Generate(request, timeout=90))

    async def hear(self, request: pb.GenerateRequest) -> Heard:
        """A call from beginning to end."""
        return await self.send(request).end()

    async def tokens(self, session_id: str) -> list[int]:
        """What the session holds, all that was put for it stored."""
        await self.gate.writer.flush(session_id)
        session = await self._sessions.Get(sessions.GetSessionRequest(session_id=session_id, include_tokens=True))
        return list(session.token_ids)


class PatientGate(SessionGate):
    """Who saw the end of an answer can rely on its being stored, also where the machine is busy."""

    async def settle(self, session_id: str, seconds: float = 30.0) -> bool:
        return await super().settle(session_id, seconds)


@asynccontextmanager
async def coordinator(local: LocalPipeline, store: RequestStore, name: str = "") -> AsyncIterator[Coordinator]:
    """Serves while the context is open."""
    pack, writer = local.pack, SessionWriter(store, flush_seconds=30.0)
    gate = PatientGate(store, writer, 600, Owner(store, name))
    telemetry = setup_telemetry({})
    server = grpc.aio.server()
    add_InferenceServicer_to_server(_inference(pack, local, gate, telemetry), server)
    add_SessionsServicer_to_server(SessionsService(gate, local.engine), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Coordinator(local, store, gate, channel)
    finally:
        await server.stop(None)
        await gate.close()
        await writer.close()
        telemetry.close()


def _inference(pack: Pack, local: LocalPipeline, gate: SessionGate, telemetry: Telemetry) -> InferenceService:
    config, defaults = pack.config, pack.generation
    bounds = Bounds(config.vocabulary, config.context, defaults.temperature, defaults.top_k, defaults.top_p)
    codec = TextCodec.open(pack.tokenizer_path(), config.bos_token_id, config.vocabulary)
    return InferenceService(
        local.engine,
        codec,
        gate,
        telemetry,
        bounds,
        model=config.name,
        eos_token_ids=frozenset(config.eos_token_ids),
        layers=[(layers.start, layers.stop) for layers in local.ranges],
    )


def identity(pack: Pack) -> ModelIdentity:
    """The model of a store."""
    return ModelIdentity(pack.config.name, pack.sha256, pack.config.vocabulary)
