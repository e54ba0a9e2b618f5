"""Waiting for a condition that nobody announces, such as the state of another process's books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Returns when the condition holds, and asks again soon while it does not; TimeoutError after `seconds`, which only
    a condition that never comes should reach: a busy machine may take many times as long as a quiet one.
    """
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (nobody sets an event)
            await asyncio.sleep(0.002)  # leaves the processor to whoever makes it true


def until(look: Callable[[], _T], seconds: float, what: str) -> _T:
    """The first answer that is not empty, none or false; AssertionError after so many seconds. Blocks."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)
    return found
