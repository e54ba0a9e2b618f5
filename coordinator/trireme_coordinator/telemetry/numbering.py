"""Gives the spans of a tree their ids, once, so that what is kept and what is delivered tell of the same spans."""

from __future__ import annotations

from dataclasses import dataclass

from trireme_coordinator.telemetry.context import TraceContext, new_span_id
from trireme_coordinator.telemetry.tree import SpanTree


@dataclass(frozen=True, slots=True)
class Numbered:
    """A span with its ids, whole numbers of 64 bits; `parent_id` 0: there is none."""

    span: SpanTree
    span_id: int
    parent: SpanTree | None
    parent_id: int


def numbered(root: SpanTree, context: TraceContext) -> list[Numbered]:
    """All spans, parents before their children."""
    ids: dict[int, int] = {}
    found: list[Numbered] = []
    for span, parent in root.walk():
        ids[id(span)] = new_span_id()
        found.append(Numbered(span, ids[id(span)], parent, context.parent_id if parent is None else ids[id(parent)]))
    return found
