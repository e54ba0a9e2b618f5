"""Numbers as commands say them."""

from __future__ import annotations


def count(parameters: int) -> str:
    """5776640 -> "5.8 M"."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)
