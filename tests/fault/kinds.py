"""Which kinds of faults a run may use, why the others are left out, and what callers may get to see of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.fault.checker import Rules
from tests.fault.cluster import Shape
from tests.fault.schedule import KINDS

_STORE = frozenset({"SESSION_STORE_UNAVAILABLE"})
_AWAY = frozenset({"SERVER_UNREACHABLE", "UNAVAILABLE", "PIPELINE_UNAVAILABLE"})
_EXCUSED: Mapping[str, frozenset[str]] = {
    "redis-kill": _STORE,
    "redis-freeze": _STORE,
    "redis-full": _STORE,
    "redis-readonly": _STORE,
    "redis-slow": _STORE,
    "redis-stall": _STORE,
    "redis-cut": _STORE,
}
"""What a call may fail with because of a fault. Of a stage or a node that is lost callers see a pause and no more."""
_EXCUSED_ALONE: Mapping[str, frozenset[str]] = {
    "coordinator-kill": _AWAY,
    "coordinator-term": _AWAY,
    "coordinator-freeze": _AWAY,
    "client-cut": _AWAY,
    "client-stall": _AWAY,
}
"""The same where no other coordinator can go on."""
_LOST_END = (
    frozenset(kind for kind in _EXCUSED),
    frozenset({"coordinator-kill", "coordinator-freeze"}),
    frozenset({"SESSION_INCOMPLETE"}),
)
"""Where the store is away when an answer ends, and the coordinator is lost before it is back, so is the answer's end.
The session's next turn must say so then; either fault alone is no excuse.
"""
_SLACK = {"fds": 24, "threads": 8, "rss_mb": 96}


def rules(shape: Shape) -> Rules:
    """For a cluster of this shape."""
    excused = _EXCUSED if shape.coordinators > 1 else {**_EXCUSED, **_EXCUSED_ALONE}
    return Rules(excused=excused, excused_together=_LOST_END, slack=_SLACK)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run does and what it does not."""

    enabled: tuple[str, ...]
    left_out: Mapping[str, str]
    """Reasons, by kind."""


def choose(shape: Shape, wanted: tuple[str, ...] = ()) -> Chosen:
    """All kinds that work here, or of them those that are wanted. ValueError for one that there is not."""
    if unknown := set(wanted) - set(KINDS):
        raise ValueError(f"There is no kind of fault named {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}.")
    reasons = {kind: reason for kind in KINDS if (reason := _reason(kind, shape, wanted))}
    return Chosen(tuple(kind for kind in KINDS if kind not in reasons), reasons)


def _reason(kind: str, shape: Shape, wanted: tuple[str, ...]) -> str:
    if wanted:
        return "" if kind in wanted else "not asked for"
    if kind == "node-partition" and not shape.namespaces:
        return "needs root and network namespaces (--network private)"
    return ""
