"""Recoveries as a trace sees them, whatever the engine's books look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Recovery(Protocol):
    """One loss of the pipeline, and how it came back; a RecoveryEvent is one."""

    @property
    def cause(self) -> str: ...
    @property
    def stages(self) -> Sequence[int]: ...
    @property
    def method(self) -> str: ...
    @property
    def detection_s(self) -> float: ...
    @property
    def rebuild_s(self) -> float: ...
    @property
    def at_ns(self) -> int:
        """When the pipeline was complete again, nanoseconds since 1970."""


class Books(Protocol):
    """Where recoveries are written down."""

    def recent(self) -> Sequence[Recovery]:
        """The last ones, the oldest first; one that is under way is the last of them."""


@dataclass(frozen=True, slots=True)
class NoBooks:
    """Nothing is ever lost."""

    def recent(self) -> Sequence[Recovery]:
        """None."""
        return ()
