"""Where the stages keep KV pages outside of themselves: in the given Redis, or in an embedded one of its own.

An embedded one is not that of the sessions: pages are large, and what fills, slows down or ends here must not touch
them. It keeps nothing on disk, and what it forgets is computed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from trireme_coordinator.config import ServeConfig
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.scheduler import PageKeys
from trireme_worker.page_redis import COMMANDS, StoreSettings, shared_secret

_GIGABYTE = 10**9
_OVERHEAD_BYTES = 256 << 20
"""Of a server with its connections' buffers."""


def embedded_page_store(budget_bytes: int) -> EmbeddedRedis:
    """A server for so many bytes of pages, not started. An allocator rounds values up by at most a quarter."""
    return EmbeddedRedis(max_memory_bytes=budget_bytes * 5 // 4 + _OVERHEAD_BYTES, commands=COMMANDS)


async def page_store(
    config: ServeConfig, stack: AsyncExitStack, say: Callable[[str], None]
) -> tuple[StoreSettings, PageKeys] | tuple[None, None]:
    """What workers are told of the store, and the names of pages in it; nothing where it is off. StartupError."""
    if not config.kv_store_gb:
        return None, None
    budget, url = config.kv_store_gb * _GIGABYTE, config.redis_url
    if not url:
        say("Starting the page store")
        embedded = embedded_page_store(budget)
        await asyncio.to_thread(embedded.start)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        url = embedded.url
    settings = StoreSettings(url, budget, config.session_ttl)
    return settings, PageKeys(await asyncio.to_thread(shared_secret, url))
