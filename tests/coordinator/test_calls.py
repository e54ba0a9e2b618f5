"""What a caller learns of an error: the typed one as it is, anything else without details."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from trireme_coordinator.service.calls import answered
from trireme_proto.errors import Internal, Overloaded, SessionNotFound, TriremeError
from trireme_proto.status import from_grpc
from trireme_proto.v1 import inference_pb2 as pb
from trireme_proto.v1.inference_pb2_grpc import InferenceServicer, InferenceStub, add_InferenceServicer_to_server

Behaviour = Callable[[Any], Awaitable[None]]


class Service(InferenceServicer):
    """Does what the test says."""

    def __init__(self) -> None:
        self.behave: Behaviour = asyncio.sleep
        self.ended = asyncio.Event()

    @answered
    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeResponse:  # noqa: N802
        await self.behave(context)
        return pb.TokenizeResponse(token_ids=[1])

    @answered
    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        try:
            await self.behave(context)
        finally:
            self.ended.set()


@pytest.fixture
async def served() -> AsyncIterator[tuple[Service, Any]]:
    service, server = Service(), grpc.aio.server()
    add_InferenceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service, InferenceStub(channel)
    await server.stop(None)


def raising(error: Exception) -> Behaviour:
    async def behave(_: Any) -> None:
        raise error

    return behave


async def error_of(call: Any) -> TriremeError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asyncio.wait_for(call, 60)
    return from_grpc(raised.value)


async def test_a_typed_error_arrives_as_it_is(served: tuple[Service, Any]) -> None:
    service, stub = served
    service.behave = raising(Overloaded("256 requests are waiting already.", retry_after=1.5))
    error = await error_of(stub.Tokenize(pb.TokenizeRequest()))
    assert (type(error), error.message, error.retry_after) == (Overloaded, "256 requests are waiting already.", 1.5)


async def test_anything_else_arrives_without_details_and_is_logged(
    served: tuple[Service, Any], caplog: pytest.LogCaptureFixture
) -> None:
    service, stub = served
    service.behave = raising(OSError(2, "No such file", "/srv/secret/key.pem"))
    for call in (stub.Tokenize(pb.TokenizeRequest()), stub.Generate(pb.GenerateRequest()).read()):
        error = await error_of(call)
        assert (type(error), error.message) == (Internal, "Something went wrong in the server; its log says what.")
    assert caplog.text.count("/srv/secret/key.pem") == 2


async def test_an_error_after_some_messages(served: tuple[Service, Any]) -> None:
    service, stub = served

    async def behave(context: Any) -> None:
        await context.write(pb.GenerateResponse(index=3))
        raise SessionNotFound("gone")

    service.behave = behave
    call = stub.Generate(pb.GenerateRequest())
    assert (await call.read()).index == 3
    assert isinstance(await error_of(call.read()), SessionNotFound)


async def test_a_caller_who_leaves_ends_the_call_where_it_stands(
    served: tuple[Service, Any], caplog: pytest.LogCaptureFixture
) -> None:
    service, stub = served

    async def write_for_ever(context: Any) -> None:
        while True:
            await context.write(pb.GenerateResponse(text="x" * 1000))

    async def wait_for_ever(context: Any) -> None:
        await context.write(pb.GenerateResponse())
        await asyncio.Event().wait()

    for service.behave in (write_for_ever, wait_for_ever):
        service.ended.clear()
        call = stub.Generate(pb.GenerateRequest())
        await call.read()
        call.cancel()
        await asyncio.wait_for(service.ended.wait(), 60)
    assert caplog.text == ""


async def test_a_caller_who_left_while_it_failed_is_nobodys_trouble(
    served: tuple[Service, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The error has nowhere to go, and leaves no traceback either."""
    service, stub = served
    begun = asyncio.Event()

    async def behave(_: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise SessionNotFound("gone")

    service.behave = behave
    call = stub.Generate(pb.GenerateRequest())
    await begun.wait()
    call.cancel()
    await asyncio.wait_for(service.ended.wait(), 60)
    assert caplog.text == ""


async def test_writing_to_a_caller_who_has_gone_is_no_fault(
    served: tuple[Service, Any], caplog: pytest.LogCaptureFixture
) -> None:
    service, stub = served
    begun = asyncio.Event()

    async def behave(context: Any) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await context.write(pb.GenerateResponse())

    service.behave = behave
    call = stub.Generate(pb.GenerateRequest())
    await begun.wait()
    call.cancel()
    await asyncio.wait_for(service.ended.wait(), 60)
    await asyncio.sleep(0)
    assert caplog.text == ""
