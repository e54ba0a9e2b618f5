"""Waiting for the first of several things to end. Knows nothing of stages, calls or frames."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def first_to_end(*works: Coroutine[Any, Any, T]) -> T:
    """What the first of them to end returns or raises (of several at once: the first named). The others are cancelled,
    and have ended when this returns.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # their outcomes do not matter any more
