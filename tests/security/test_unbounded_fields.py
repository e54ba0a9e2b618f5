"""CVE-2026-21869, CVE-2026-34756, CVE-2025-48956, CVE-2025-48944: negative or unbounded request fields. Each field of
each public request has its row here, made from the limits: just inside is taken; just outside, NaN, infinite and
negative is refused with a typed error. A field without a row fails a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tests.security.keyed_server import keyed_server

import trireme_proto.v1 as protocol
from trireme_coordinator.service import requests
from trireme_coordinator.service.requests import Bounds
from trireme_proto.errors import InvalidRequest, TriremeError
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1 import sessions_pb2 as sessions
from trireme_worker.pack import Pack

VOCABULARY, CONTEXT = 1000, 512
BOUNDS = Bounds(VOCABULARY, CONTEXT, 1.0, 0, 1.0)
_SHORTER = grpc.StatusCode.FAILED_PRECONDITION
NOT_NUMBERS = (math.nan, math.inf, -math.inf)
SAMPLING: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0.0, LIMITS.temperature], [-0.001, -1.0, LIMITS.temperature + 0.001, *NOT_NUMBERS]),
    "top_k": ([0, VOCABULARY], [VOCABULARY + 1, 2**32 - 1]),
    "top_p": ([1e-6, 1.0], [0.0, -0.5, 1.0001, *NOT_NUMBERS]),
    "seed": ([0, 2**64 - 1], []),
}
GENERATE: dict[str, tuple[list[Any], list[Any]]] = {
    "text": (["", "a" * 100], ["a" * (LIMITS.prompt_bytes + 1), "\N{EURO SIGN}" * (LIMITS.prompt_bytes // 3 + 1)]),
    "token_ids": ([[0], [VOCABULARY - 1]], [[VOCABULARY], [2**32 - 1], [0] * (LIMITS.request_tokens + 1)]),
    "max_tokens": ([1, CONTEXT], [0, CONTEXT + 1, 2**32 - 1]),
    "request_id": (["a", "a" * LIMITS.id_length], ["a" * (LIMITS.id_length + 1), "a b", "\N{EURO SIGN}", "a\0"]),
    "stop": (
        [["a"], ["a" * LIMITS.stop_bytes] * LIMITS.stop_texts],
        [[""], ["a" * (LIMITS.stop_bytes + 1)], ["a"] * (LIMITS.stop_texts + 1)],
    ),
    "priority": ([0, LIMITS.priority], [LIMITS.priority + 1, 2**32 - 1]),
    "ignore_eos": ([True, False], []),
}
ON_THE_WIRE: dict[str, tuple[list[Any], list[Any]]] = {
    "CreateSessionRequest.ttl_seconds": (
        [1, LIMITS.session_ttl_seconds],
        [0, LIMITS.session_ttl_seconds + 1, 2**32 - 1],
    ),
    "ListSessionsRequest.page_size": ([1, LIMITS.page_size], [0, LIMITS.page_size + 1, 2**32 - 1]),
    "ListSessionsRequest.page_token": ([""], ["x", "a" * 10_000, "AAAA", "\N{EURO SIGN}"]),
    "GetSessionRequest.session_id": ([], ["", "a" * (LIMITS.id_length + 1), "a b"]),
    "DeleteSessionRequest.session_id": ([], ["", "a" * (LIMITS.id_length + 1), "a b"]),
    "ForkSessionRequest.session_id": ([], ["", "a" * (LIMITS.id_length + 1), "a b"]),
    "RewindSessionRequest.session_id": ([], ["", "a" * (LIMITS.id_length + 1), "a b"]),
    "ExportSessionRequest.session_id": ([], ["", "a" * (LIMITS.id_length + 1), "a b"]),
    "ImportSessionRequest.archive": ([], [b"", b"\0" * 1000, b"\xff" * 100_000]),
    "DetokenizeRequest.token_ids": ([[0], []], [[2**32 - 1], [0] * (LIMITS.request_tokens + 1)]),
    "TokenizeRequest.text": (["", "a"], ["a" * (LIMITS.prompt_bytes + 1)]),
}
ELSEWHERE = {
    "GetSessionRequest.include_tokens": "a flag",
    "TokenizeRequest.add_bos": "a flag",
    "GenerateRequest.sampling": "a row for each of its fields",
    "GenerateRequest.session_id": "below, as of the other requests",
    "GenerateRequest.resume_index": "below: what it may be depends on the answer",
    "GenerateRequest.session_tokens": "below: what it may be depends on the session",
    "ForkSessionRequest.at": "below: what it may be depends on the session",
    "RewindSessionRequest.at": "below: what it may be depends on the session",
    "ImportSessionRequest.ttl_seconds": "below, with an archive",
    "GenerateRequest.trace_steps": "a flag",
    "ProfileRequest.seconds": "tests of the profile",
    "ListTracesRequest.limit": "tests of traces",
    "GetTraceRequest.id": "tests of traces",
    "PreviewPlacementRequest.nodes": "tests/coordinator/test_previews.py",
    "PreviewPlacementRequest.prompt_tokens": "tests/coordinator/test_previews.py",
    "PreviewPlacementRequest.context_tokens": "tests/coordinator/test_previews.py",
}


def test_every_field_has_a_row() -> None:
    rows = {f"GenerateRequest.{name}" for name in GENERATE} | set(ON_THE_WIRE) | set(ELSEWHERE)
    found, files = set(), Path(next(iter(protocol.__path__))).glob("*_pb2.py")
    for name in (file.stem for file in files if file.stem != "stage_pb2"):
        for service in import_module(f"{protocol.__name__}.{name}").DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found |= {f"{method.input_type.name}.{field.name}" for field in method.input_type.fields}
    assert found <= rows
    assert {row.partition(".")[0] for row in ON_THE_WIRE} <= {name.partition(".")[0] for name in found}
    assert {field.name for field in inference.Sampling.DESCRIPTOR.fields} == set(SAMPLING)


def put(message: Message, name: str, value: Any) -> None:
    """Sets a field; lists of a message of ids go where they belong."""
    if name == "token_ids" and isinstance(message, inference.GenerateRequest):
        message.token_ids.ids.extend(value)
    elif isinstance(value, list):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)


def cases(table: dict[str, tuple[list[Any], list[Any]]], which: int) -> Iterator[Any]:
    for name, row in table.items():
        for i, value in enumerate(row[which]):
            yield pytest.param(name, value, id=f"{name}-{i}")


def asked(name: str, value: Any) -> inference.GenerateRequest:
    request = inference.GenerateRequest()
    put(request.sampling if name in SAMPLING else request, name, value)
    if request.WhichOneof("prompt") is None:
        request.token_ids.ids.append(0)
    return request


@pytest.mark.parametrize(("name", "value"), list(cases(SAMPLING | GENERATE, 0)))
def test_what_is_just_inside_is_taken(name: str, value: Any) -> None:
    requests.read(asked(name, value), BOUNDS)


@pytest.mark.parametrize(("name", "value"), list(cases(SAMPLING | GENERATE, 1)))
def test_what_is_just_outside_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.read(asked(name, value), BOUNDS)
    assert len(caught.value.message) < 300, "a value is not told back at length"


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, "1", None])
@pytest.mark.parametrize("field", ["max_tokens", "priority", "resume_index", "session_tokens"])
def test_what_is_negative_or_no_number_cannot_even_be_written(field: str, value: Any) -> None:
    if value is not None:
        with pytest.raises((ValueError, TypeError)):
            inference.GenerateRequest(**{field: value})


async def test_on_the_wire(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path, ["acme"]) as server:
        metadata = (("authorization", f"Bearer {server.keys.keys['acme']}"),)
        options = [("grpc.max_send_message_length", LIMITS.message_bytes)]
        async with grpc.aio.insecure_channel(server.served.address, options=options) as channel:

            async def call(request: Message) -> grpc.StatusCode:
                try:
                    await channel.unary_unary(_method(request))(request.SerializeToString(), metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return grpc.StatusCode.OK

            for row, (good, bad) in ON_THE_WIRE.items():
                kind, _, name = row.partition(".")
                for value, wanted in [(v, True) for v in good] + [(v, False) for v in bad]:
                    request = getattr(sessions, kind, None) or getattr(inference, kind)
                    put(message := request(), name, value)
                    code = await call(message)
                    assert (code == grpc.StatusCode.OK) == wanted, (row, str(value)[:40], code)
                    assert wanted or code == grpc.StatusCode.INVALID_ARGUMENT, (row, str(value)[:40], code)


async def test_positions_and_archives(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path, ["acme"]) as server:
        client = server.clients["acme"]
        answer = await client.generate([0, 1, 2], max_tokens=3, temperature=0.0, ignore_eos=True).result()
        held = (await client.sessions.get(answer.session_id)).token_count
        for at in (held + 1, 2**32 - 1):
            with pytest.raises(InvalidRequest):
                await client.sessions.fork(answer.session_id, at=at)
            with pytest.raises(InvalidRequest):
                await client.sessions.rewind(answer.session_id, at)
        archive = await client.sessions.export(answer.session_id)
        for ttl in (0, LIMITS.session_ttl_seconds + 1):
            with pytest.raises(InvalidRequest):
                await client.sessions.import_(archive, ttl_seconds=ttl)
        await client.sessions.import_(archive, ttl_seconds=LIMITS.session_ttl_seconds)
        for cut in range(0, len(archive), 7):
            with pytest.raises(TriremeError):
                await client.sessions.import_(archive[:cut])


async def test_tokens_that_a_session_is_said_to_hold(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path, ["acme"]) as server:
        answer = await server.clients["acme"].generate([0, 1, 2], max_tokens=3, temperature=0.0).result()
        held = answer.usage.prompt_tokens + answer.usage.completion_tokens
        metadata = (("authorization", f"Bearer {server.keys.keys['acme']}"),)
        async with grpc.aio.insecure_channel(server.served.address) as channel:
            generate = channel.unary_stream("/trireme.v1.Inference/Generate")
            for said, code in ((held + 1, _SHORTER), (2**32 - 1, _SHORTER), (held, grpc.StatusCode.OK)):
                request = asked("max_tokens", 1)
                request.session_id, request.session_tokens = answer.session_id, said
                call = generate(request.SerializeToString(), metadata=metadata)
                with suppress(grpc.aio.AioRpcError):
                    assert [_ async for _ in call]  # its code comes after the last message
                assert await call.code() == code, said


async def test_a_message_that_is_too_large_is_refused_before_it_is_read(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path, ["acme"]) as server:
        metadata = (("authorization", f"Bearer {server.keys.keys['acme']}"),)
        huge = (*metadata, ("x-large", "a" * (1 << 20)))  # beyond gRPC's own bound on headers
        async with grpc.aio.insecure_channel(server.served.address) as channel:
            tokenize = channel.unary_unary("/trireme.v1.Inference/Tokenize")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await tokenize(b"\0" * (LIMITS.message_bytes + 1), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            with pytest.raises(grpc.aio.AioRpcError):
                await tokenize(b"", metadata=huge, timeout=20)
        assert await server.clients["acme"].tokenize("still here")


def _method(request: Message) -> str:
    name = type(request).__name__
    if hasattr(sessions, name):
        return f"/trireme.v1.Sessions/{name.removesuffix('Request').removesuffix('Sessions').removesuffix('Session')}"
    return f"/trireme.v1.Inference/{name.removesuffix('Request')}"
