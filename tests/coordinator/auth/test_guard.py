"""The guard in front of a real gRPC server whose services do next to nothing."""
# ruff: noqa: N802 - methods are named as in the .proto files

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from tests.support.keyed import Keyed, keyed

from trireme_coordinator.auth.audit import AuditLog
from trireme_coordinator.auth.guard import Credentials, Guard
from trireme_coordinator.auth.identity import Identity, current
from trireme_coordinator.auth.quotas import Quota, Quotas
from trireme_coordinator.auth.scopes import SCOPES
from trireme_coordinator.service.calls import answered
from trireme_proto import errors
from trireme_proto.status import from_grpc
from trireme_proto.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)

TENANTS = {"acme": ("generate",), "blue": ("sessions",), "ops": ("admin",), "eyes": ("cluster",)}


class Inference(inference_pb2_grpc.InferenceServicer):
    """Sends a token, then waits until it is let go."""

    def __init__(self) -> None:
        self.go, self.seen = asyncio.Event(), list[Identity]()
        self.go.set()

    @answered
    async def Generate(self, request: Any, context: Any) -> None:  # type: ignore[override]
        self.seen.append(current().identity)
        current().trace_id = "ab" * 16
        current().used(request.max_tokens)
        await context.write(inference_pb2.GenerateResponse(token_ids=[1]))
        await self.go.wait()

    @answered
    async def Tokenize(self, request: Any, context: Any) -> Any:
        if request.text == "wrong":
            raise errors.InvalidRequest("text is wrong.")
        return inference_pb2.TokenizeResponse(token_ids=[1])


class Sessions(sessions_pb2_grpc.SessionsServicer):
    @answered
    async def Create(self, request: Any, context: Any) -> Any:
        return sessions_pb2.Session(session_id=current().tenant)


class Cluster(cluster_pb2_grpc.ClusterServicer):
    @answered
    async def Status(self, request: Any, context: Any) -> Any:
        return cluster_pb2.StatusResponse()


class Server:
    def __init__(self, channel: grpc.aio.Channel, inference: Inference, keys: Keyed | None) -> None:
        self.channel, self.inference, self.keys = channel, inference, keys
        self.asks = inference_pb2_grpc.InferenceStub(channel)
        self.sessions = sessions_pb2_grpc.SessionsStub(channel)
        self.cluster = cluster_pb2_grpc.ClusterStub(channel)

    def of(self, tenant: str) -> tuple[tuple[str, str], ...]:
        assert self.keys is not None
        return (("authorization", f"Bearer {self.keys.keys[tenant]}"),)


@asynccontextmanager
async def served(guard: Guard, keys: Keyed | None = None) -> AsyncIterator[Server]:
    server, inference = grpc.aio.server(interceptors=[guard]), Inference()
    inference_pb2_grpc.add_InferenceServicer_to_server(inference, server)
    sessions_pb2_grpc.add_SessionsServicer_to_server(Sessions(), server)
    cluster_pb2_grpc.add_ClusterServicer_to_server(Cluster(), server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    reflection.enable_server_reflection((reflection.SERVICE_NAME,), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Server(channel, inference, keys)
    await server.stop(None)


@asynccontextmanager
async def guarded(folder: Path, **options: Any) -> AsyncIterator[Server]:
    keys = keyed(folder, TENANTS, **options)
    async with served(keys.guard, keys) as server:
        yield server


async def failure(call: Any) -> errors.TriremeError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [each async for each in call] if hasattr(call, "__aiter__") else await call
    return from_grpc(caught.value)


async def test_without_keys_everybody_is_the_default_tenant() -> None:
    async with served(Guard(Credentials(), Quotas(lambda _: Quota()))) as server:
        assert (await server.sessions.Create(sessions_pb2.CreateSessionRequest())).session_id == "default"
        anything = (("authorization", "Bearer x"),)
        assert await server.cluster.Status(cluster_pb2.StatusRequest(), metadata=anything) is not None


async def test_services_learn_who_calls(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        made = await server.sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=server.of("blue"))
        assert made.session_id == "blue"
        call = server.asks.Generate(inference_pb2.GenerateRequest(), metadata=server.of("acme"))
        assert len([each async for each in call]) == 1
        assert [each.tenant for each in server.inference.seen] == ["acme"]


async def test_who_shows_nothing_good_gets_one_sentence(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        nothing = await failure(server.asks.Tokenize(inference_pb2.TokenizeRequest()))
        assert type(nothing) is errors.Unauthenticated
        (name, good), *_ = server.of("acme")
        wrong = [
            ((name, "Bearer wrong"),),
            ((name, good + "0"),),
            ((name, good.removeprefix("Bearer ")),),
            ((name, "Basic " + good.removeprefix("Bearer ")),),
            ((name, ""),),
            ((name, "Bearer " + "x" * 7000),),  # beyond 8 KiB of metadata gRPC itself may refuse
            ((name, good), (name, good)),
            ((name, "Bearer x"), (name, good)),
        ]
        texts = set()
        for metadata in wrong:
            error = await failure(server.asks.Tokenize(inference_pb2.TokenizeRequest(), metadata=metadata))
            assert type(error) is errors.Unauthenticated
            texts.add(error.message)
        assert len(texts) == 1


async def test_a_scope_opens_its_methods_and_admin_all(tmp_path: Path) -> None:
    def calls(server: Server, tenant: str) -> dict[str, Any]:
        metadata = server.of(tenant)
        return {
            "generate": server.asks.Tokenize(inference_pb2.TokenizeRequest(), metadata=metadata),
            "sessions": server.sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=metadata),
            "cluster": server.cluster.Status(cluster_pb2.StatusRequest(), metadata=metadata),
        }

    async with guarded(tmp_path) as server:
        for tenant, scopes in TENANTS.items():
            for scope, call in calls(server, tenant).items():
                if scope in scopes or "admin" in scopes:
                    await call
                else:
                    error = await failure(call)
                    assert type(error) is errors.PermissionDenied
                    assert scope in error.message


async def test_a_method_without_an_entry_is_open_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: scope for name, scope in SCOPES.items() if not name.endswith("Tokenize")}
    monkeypatch.setattr("trireme_coordinator.auth.guard.SCOPES", rest)
    async with guarded(tmp_path) as server:
        error = await failure(server.asks.Tokenize(inference_pb2.TokenizeRequest(), metadata=server.of("ops")))
        assert type(error) is errors.PermissionDenied


async def test_a_method_that_is_not_there_says_so(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        call = server.channel.unary_unary("/trireme.v1.Inference/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=server.of("ops"))
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_nothing_of_a_refused_call_is_parsed(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        call = server.channel.unary_unary("/trireme.v1.Inference/Tokenize")
        assert type(await failure(call(b"\xff\xff\xff"))) is errors.Unauthenticated


async def test_health_is_open_and_reflection_wants_any_key_unless_it_was_opened(tmp_path: Path) -> None:
    async def listed(server: Server, metadata: Any) -> Message:
        asks = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo
        call = asks(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata)
        return await anext(aiter(call))  # type: ignore[no-any-return]

    async with guarded(tmp_path) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(service="x"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND, "it was answered"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(server, ())
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert await listed(server, server.of("eyes"))
    (tmp_path / "keys.json").unlink()
    async with guarded(tmp_path, open_reflection=True) as server:
        assert await listed(server, ())


async def test_quotas_refuse_with_a_time_to_come_back(tmp_path: Path) -> None:
    async with guarded(tmp_path, quota=Quota(requests_per_minute=2)) as server:
        for _ in range(2):
            await server.asks.Tokenize(inference_pb2.TokenizeRequest(), metadata=server.of("acme"))
        error = await failure(server.asks.Tokenize(inference_pb2.TokenizeRequest(), metadata=server.of("acme")))
        assert type(error) is errors.QuotaExceeded
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 30
        for _ in range(5):  # looking at the cluster costs no request
            await server.cluster.Status(cluster_pb2.StatusRequest(), metadata=server.of("eyes"))
        await server.sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=server.of("blue"))


async def test_streams_at_once_are_given_back_however_they_end(tmp_path: Path) -> None:
    async with guarded(tmp_path, quota=Quota(streams=1)) as server:
        request = inference_pb2.GenerateRequest()
        for _ in range(3):
            server.inference.go.clear()
            held = server.asks.Generate(request, metadata=server.of("acme"))
            await anext(aiter(held))
            error = await failure(server.asks.Generate(request, metadata=server.of("acme")))
            assert type(error) is errors.QuotaExceeded
            held.cancel()
            server.inference.go.set()
            await _let_in(server, request)


async def _let_in(server: Server, request: Any) -> None:
    """As soon as the server has noticed that the stream before was cancelled."""
    for _ in range(1000):
        with suppress(grpc.aio.AioRpcError):
            _ = [each async for each in server.asks.Generate(request, metadata=server.of("acme"))]
            return
    pytest.fail("a cancelled stream keeps its place")


async def test_tokens_that_services_report_are_charged(tmp_path: Path) -> None:
    async with guarded(tmp_path, quota=Quota(tokens_per_minute=100)) as server:
        long = inference_pb2.GenerateRequest(max_tokens=1000)
        _ = [each async for each in server.asks.Generate(long, metadata=server.of("acme"))]
        error = await failure(server.asks.Generate(long, metadata=server.of("acme")))
        assert type(error) is errors.QuotaExceeded
        assert error.retry_after == pytest.approx(541, abs=2)


async def test_a_revoked_key_is_refused_and_stays_in_the_audit_log(tmp_path: Path) -> None:
    audit = AuditLog(str(tmp_path / "audit.jsonl"))
    async with guarded(tmp_path, audit=audit) as server:
        await server.asks.Tokenize(inference_pb2.TokenizeRequest(text="PRIVATE"), metadata=server.of("acme"))
        await failure(server.asks.Tokenize(inference_pb2.TokenizeRequest(text="wrong"), metadata=server.of("acme")))
        await failure(server.asks.Tokenize(inference_pb2.TokenizeRequest()))
        await failure(server.cluster.Status(cluster_pb2.StatusRequest(), metadata=server.of("acme")))
        request = inference_pb2.GenerateRequest(max_tokens=7)
        _ = [each async for each in server.asks.Generate(request, metadata=server.of("acme"))]
        server.inference.go.clear()
        held = server.asks.Generate(request, metadata=server.of("acme"))
        await anext(aiter(held))
        held.cancel()
        keys = server.keys
    audit.close()
    assert keys is not None
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["result"], line["tenant"], line["tokens"]) for line in lines] == [
        ("OK", "acme", 0),
        ("INVALID_ARGUMENT", "acme", 0),
        ("UNAUTHENTICATED", "", 0),
        ("PERMISSION_DENIED", "acme", 0),
        ("OK", "acme", 7),
        ("CANCELLED", "acme", 7),
    ]
    assert lines[0]["subject"] == f"key:{keys.ids['acme']}"
    assert lines[4]["trace_id"] == "ab" * 16
    assert lines[2]["reason"] == "UNAUTHENTICATED"
    assert "PRIVATE" not in text
    assert not any(key in text for key in keys.keys.values())
