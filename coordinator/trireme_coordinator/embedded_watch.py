"""Keeps the embedded session store running: a server that ends by itself, or is killed, is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_proto.errors import StartupError

_PERIOD_SECONDS = 0.5


async def keep_running(server: EmbeddedRedis, say: Callable[[str], None], seconds: float = _PERIOD_SECONDS) -> None:
    """Looks every so many seconds, until cancelled; `say` is told of each start, and once of a start that failed."""
    failed = ""
    while True:
        await asyncio.sleep(seconds)
        if server.running:
            continue
        try:
            await asyncio.to_thread(server.revive)
        except StartupError as error:
            if error.message != failed:
                failed = error.message
                say(f"The session store ended and cannot be started again: {failed}")
        else:
            failed = ""
            say("The session store ended and was started again")
