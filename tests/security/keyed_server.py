"""The public server over stages in this process, with keys of several tenants and a client for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.keyed import Keyed, keyed
from tests.support.pipeline import LocalPipeline, local_pipeline
from tests.support.serving import Served, identity, serving

from trireme import AsyncClient
from trireme_coordinator.store import MemoryRequestStore, RequestStore
from trireme_worker.pack import Pack


@dataclass(frozen=True)
class KeyedServer:
    """A server, its keys, and clients by tenant."""

    served: Served
    keys: Keyed
    clients: Mapping[str, AsyncClient]
    local: LocalPipeline
    store: RequestStore


@asynccontextmanager
async def keyed_server(
    pack: Pack, folder: Path, tenants: Mapping[str, Sequence[str]] | Sequence[str] = ("acme", "blue"), **options: Any
) -> AsyncIterator[KeyedServer]:
    """Serves while the context is open. `options`: of the guard."""
    keys, store = keyed(folder, tenants, **options), MemoryRequestStore(identity(pack))
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(local_pipeline(pack, 1, speculation=False))
        served = await stack.enter_async_context(serving(local, store, guard=keys.guard))
        clients = {
            tenant: await stack.enter_async_context(AsyncClient(served.address, api_key=key, timeout=60, retries=0))
            for tenant, key in keys.keys.items()
        }
        yield KeyedServer(served, keys, clients, local, store)
