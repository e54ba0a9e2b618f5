"""The addresses of the servers that stand in for each other, and which of them was last known to serve.

All calls of a client share it. Knows no gRPC; safe to use from several threads.
"""

from __future__ import annotations

import threading


class Addresses:
    """One of `targets` is the current one; whoever finds it gone moves on to the next."""

    def __init__(self, targets: tuple[str, ...]) -> None:
        self.targets = targets
        self.reached = False
        """Whether any of them has ever answered."""
        self._current = 0
        self._lock = threading.Lock()

    @property
    def current(self) -> int:
        """Index of the one to call."""
        return self._current

    def leave(self, index: int) -> None:
        """The one of this index does not serve. Nothing happens where another call has moved on already."""
        with self._lock:
            if index == self._current:
                self._current = (index + 1) % len(self.targets)

    def __str__(self) -> str:
        return ",".join(self.targets)
