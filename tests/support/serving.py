"""The public server over stages in this process and a session store of the test's choice; no Ray.

async with local_pipeline(pack) as local, serving(local, store) as served:
    answer = await served.client.generate("Hello").result()
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.support.pipeline import LocalPipeline

from trireme import AsyncClient
from trireme_coordinator.auth.guard import Guard
from trireme_coordinator.placement import Node, Placed
from trireme_coordinator.public_server import PublicServer
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.store import ModelIdentity, RequestStore, SessionWriter
from trireme_coordinator.telemetry import Telemetry, setup_telemetry
from trireme_coordinator.text import TextCodec
from trireme_proto.certificates import CertificateFiles
from trireme_proto.errors import SessionStoreUnavailable
from trireme_worker.pack import Pack


@dataclass(frozen=True)
class Served:
    """A server, and a client of it that repeats nothing."""

    client: AsyncClient
    writer: SessionWriter
    address: str
    telemetry: Telemetry


def identity(pack: Pack) -> ModelIdentity:
    """As the server knows its model."""
    return ModelIdentity(pack.config.name, pack.sha256, pack.config.vocabulary)


@asynccontextmanager
async def serving(
    local: LocalPipeline,
    store: RequestStore,
    *,
    required: bool = False,
    backlog_bytes: int = 64 << 20,
    tls: CertificateFiles | None = None,
    mutual: bool = False,
    guard: Guard | None = None,
    **client_options: Any,
) -> AsyncIterator[Served]:
    """Serves while the context is open. `client_options`: of the client."""
    pack = local.pack
    writer = SessionWriter(store, backlog_bytes=backlog_bytes, flush_seconds=1.0)
    codec = TextCodec.open(pack.tokenizer_path(), pack.config.bos_token_id, pack.config.vocabulary)
    placed = [Placed(i, layers, Node("", "", "")) for i, layers in enumerate(local.ranges)]
    telemetry, no_previews = setup_telemetry(environment={}), Any
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        stack.push_async_callback(_closed, writer)
        public = PublicServer("127.0.0.1", 0, tls=tls, mutual=mutual, guard=guard, counted=telemetry.meter)
        stack.push_async_callback(public.stop)
        gate = SessionGate(store, writer, 3600, required=required)
        stack.push_async_callback(gate.close)
        await public.start(local.engine, codec, gate, telemetry, pack, placed, no_previews, threads=1)  # type: ignore[arg-type]
        client = await stack.enter_async_context(AsyncClient(public.address, timeout=60, retries=0, **client_options))
        yield Served(client, writer, public.address, telemetry)


async def _closed(writer: SessionWriter) -> None:
    with suppress(SessionStoreUnavailable):  # a test may end while its store is away
        await writer.close()
