"""What a coordinator opens or connects to before it serves: the pack, the session store, Ray, the right to lead.

Everything is closed by the stack that it is given. A mistake in an address or a path is a StartupError here, before
anything slow begins.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from trireme_coordinator.config import ServeConfig, split_address
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.embedded_watch import keep_running
from trireme_coordinator.leadership import Leadership, LeasedLeadership, SoleLeadership
from trireme_coordinator.ray_cluster import RayCluster
from trireme_coordinator.store import ModelIdentity, Owner, RedisRequestStore
from trireme_coordinator.store.lease import RedisLease
from trireme_proto.errors import StartupError
from trireme_worker.pack import Pack, default_pack, is_url, local_pack

Say = Callable[[str], None]
"""Told what is being done, one line each."""
_NO_LAYERS = range(0)


async def open_pack(config: ServeConfig, say: Say) -> Pack:
    """The pack; of one at a URL only what the coordinator itself needs: each worker fetches its own layers."""
    if not is_url(config.pack):
        return Pack.open(Path(config.pack) if config.pack else default_pack(), verify=False)
    say("Fetching the model's manifest and tokenizer")
    folder = await asyncio.to_thread(local_pack, config.pack, _NO_LAYERS)
    return Pack.open(folder, verify=False, weights=False)


async def open_store(config: ServeConfig, pack: Pack, stack: AsyncExitStack, say: Say) -> RedisRequestStore:
    """The sessions and requests, in the given Redis or an embedded one. StartupError where it does not answer."""
    url = config.redis_url
    if not url:
        say("Starting the session store")
        embedded = EmbeddedRedis(Path(config.data_dir) if config.data_dir else None)
        await asyncio.to_thread(embedded.start)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        await background(keep_running(embedded, say), stack)
        url = embedded.url
    model = ModelIdentity(pack.config.name, pack.sha256, pack.config.vocabulary)
    store = RedisRequestStore(url, model)
    stack.push_async_callback(store.close)
    if not await store.ping():
        raise StartupError("Redis does not answer at the address given with --redis-url.")
    return store


async def connect_ray(config: ServeConfig, stack: AsyncExitStack, say: Say) -> RayCluster:
    """The Ray cluster at the given address, or one of our own. StartupError."""
    say(f"Connecting to Ray at {config.ray_address}" if config.ray_address else "Starting Ray")
    cluster = RayCluster(config.ray_address, config.name)
    stack.push_async_callback(asyncio.to_thread, cluster.stop)
    await asyncio.to_thread(cluster.start)
    _take_back_sigterm()
    return cluster


def _take_back_sigterm() -> None:
    """Ray puts a handler of its own before Python's, which dumps the stack, and aborts the process after 3 s."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        signal.siginterrupt(signal.SIGTERM, False)


async def leadership_of(config: ServeConfig, stack: AsyncExitStack) -> Leadership:
    """Coordinators that share Redis and Ray stand in for each other."""
    if not shared(config):
        return SoleLeadership()
    name = f"{socket.gethostname()}:{split_address(config.listen)[1]}"
    lease = RedisLease(config.redis_url, config.name, f"{name}/{secrets.token_hex(4)}")
    stack.push_async_callback(lease.close)
    return LeasedLeadership(lease)


def owner_of(config: ServeConfig, store: RedisRequestStore) -> Owner:
    """Who generates on sessions: of coordinators that stand in for each other only the leader does, so that a successor
    need not wait for sessions of the one before. The fencing number keeps a deposed one from writing.
    """
    return Owner(store, config.name if shared(config) else "")


def shared(config: ServeConfig) -> bool:
    """Whether other coordinators can reach the same stages and sessions, and so stand in for this one."""
    return bool(config.redis_url and config.ray_address)


async def background(work: Coroutine[None, None, None], stack: AsyncExitStack) -> asyncio.Task[None]:
    """Runs a coroutine until the stack unwinds."""
    task = asyncio.ensure_future(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
    return task
