"""Waiting for what a process of its own does, by looking; never by sleeping long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def until(look: Callable[[], _T], seconds: float, what: str) -> _T:
    """The first answer that is not empty, none or false; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)
    return found
