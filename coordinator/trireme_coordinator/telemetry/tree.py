"""A span before anybody asked for it: plain values in a tree, made once, when its request has ended.

From it come what is kept for `trireme trace` (`messages.py`) and what is delivered (`export.py`). Knows no library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | int | float | Sequence[str] | Sequence[int] | Sequence[float]
COORDINATOR_SERVICE, STAGE_SERVICE = "trireme-coordinator", "trireme-stage"


@dataclass(frozen=True, slots=True)
class Process:
    """Who did the work that a span tells of."""

    service: str
    """COORDINATOR_SERVICE or STAGE_SERVICE."""
    instance: str
    """Tells it from all other processes of the service."""
    host: str = ""
    process_id: int = 0


@dataclass(slots=True)
class SpanTree:
    """A span and those below it. Times are nanoseconds since 1970."""

    name: str
    start_ns: int
    end_ns: int
    process: Process
    attributes: dict[str, Value] = field(default_factory=dict)
    children: list[SpanTree] = field(default_factory=list)
    error: str = ""
    """Why it failed, one word; empty: it did not."""

    def child(
        self,
        name: str,
        start_ns: int,
        end_ns: int,
        attributes: Mapping[str, Value] | None = None,
        process: Process | None = None,
    ) -> SpanTree:
        """A further span below this one, cut to its time: clocks of other machines differ."""
        start = min(max(start_ns, self.start_ns), self.end_ns)
        end = min(max(end_ns, start), self.end_ns)
        made = SpanTree(name, start, end, process or self.process, dict(attributes or {}))
        self.children.append(made)
        return made

    def walk(self) -> Iterator[tuple[SpanTree, SpanTree | None]]:
        """Every span with its parent, parents first."""
        todo: list[tuple[SpanTree, SpanTree | None]] = [(self, None)]
        while todo:
            span, parent = todo.pop()
            yield span, parent
            todo += [(child, span) for child in reversed(span.children)]
