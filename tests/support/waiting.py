"""Waiting for a condition that nobody announces, such as the state of another process's books."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Returns when the condition holds, and asks again at once while it does not; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (nobody sets an event)
            await asyncio.sleep(0)
