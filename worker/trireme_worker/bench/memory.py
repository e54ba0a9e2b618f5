"""Memory is asked for before it is taken: a measurement that swaps measures the disk."""

from __future__ import annotations

import psutil

from trireme_proto.errors import ConfigurationError

GIB = 1 << 30


def require(what: str, needed: float) -> None:
    """ConfigurationError where less than `needed` bytes are free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise ConfigurationError(f"{what} takes {needed / GIB:.1f} GiB of memory, {free / GIB:.1f} are free")
