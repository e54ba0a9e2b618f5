"""What the loss of a stage is, and what is remembered of a recovery. Plain values: no clock, no network.

dead      its process is gone: the connection is refused or was reset
silent    nothing comes from it: it is frozen, or cut off
hung      it answers, but what it computes does not get on
cut       it answers and computes nothing, as what the stage before it sends does not arrive
refused   it refused a frame, or the new epoch; its process lives on
ended     it ended its call without saying why; its process lives on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trireme_coordinator.config import split_address

RECOVERIES = 64
"""Events that are kept."""


class Cause(StrEnum):
    """Why a pipeline was lost; see the module."""

    DEAD = "dead"
    SILENT = "silent"
    HUNG = "hung"
    CUT = "cut"
    REFUSED = "refused"
    ENDED = "ended"


REPLACED = frozenset({Cause.DEAD, Cause.SILENT, Cause.HUNG, Cause.CUT})
"""Causes after which the stage's process is not used any more."""


@dataclass(frozen=True, slots=True)
class StageLoss:
    """One stage that was lost."""

    stage: int
    cause: Cause
    seconds: float
    """Since its last sign of life."""


class StageLost(Exception):
    """The watch's verdict: these stages are lost."""

    def __init__(self, losses: Sequence[StageLoss]) -> None:
        super().__init__(", ".join(f"stage {loss.stage} is {loss.cause}" for loss in losses))
        self.losses = tuple(losses)


class Method(StrEnum):
    """How a pipeline came back."""

    KEPT = "kept"
    """With the same processes."""
    RESTARTED = "restarted"
    """Lost stages were started again on their nodes."""
    MOVED = "moved"
    """At least one on another node."""
    UNFINISHED = "unfinished"
    """It is not back yet."""


@dataclass(frozen=True, slots=True)
class RecoveryEvent:
    """One loss of the pipeline, and how it came back."""

    cause: Cause
    stages: tuple[int, ...]
    """That were lost; empty where none of them was."""
    method: Method
    detection_s: float
    """From the last sign of life to the verdict."""
    rebuild_s: float
    """From the verdict until the pipeline was complete again."""
    sequences: int
    """Running requests that it interrupted."""
    tokens: int
    """Tokens of theirs whose keys and values were lost."""
    at_ns: int = 0
    """When it was complete again, nanoseconds since 1970."""

    def __str__(self) -> str:
        which = ", ".join(map(str, self.stages)) or "none"
        return (
            f"recovered: cause {self.cause}, stages lost {which}, {self.method}, detected in {self.detection_s:.2f} s,"
            f" rebuilt in {self.rebuild_s:.2f} s, {self.sequences} sequences, {self.tokens} tokens to compute again"
        )


def method_of(before: Sequence[str], after: Sequence[str]) -> Method:
    """How the addresses (HOST:PORT) of a pipeline's stages became others."""
    if list(before) == list(after):
        return Method.KEPT
    hosts = [[split_address(address)[0] for address in addresses] for addresses in (before, after)]
    return Method.RESTARTED if hosts[0] == hosts[1] else Method.MOVED
