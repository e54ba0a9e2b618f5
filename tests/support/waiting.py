"""Waiting for a condition that nobody announces, such as the state of another process's books."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Returns when the condition holds, and asks again soon while it does not; TimeoutError after `seconds`, which only
    a condition that never comes should reach: a busy machine may take many times as long as a quiet one.
    """
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (nobody sets an event)
            await asyncio.sleep(0.002)  # leaves the processor to whoever makes it true
