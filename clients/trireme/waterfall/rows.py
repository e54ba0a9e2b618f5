"""Spans as the lines of a waterfall: in which order, how deep, from where to where, and in which words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from trireme.traces import RequestSpans, Span, SpanValue

_PARTS = {"wire": "trireme.wire_ms", "wait": "trireme.wait_ms", "compute": "trireme.compute_ms"}
_SPLIT = {name: f"trireme.compute.{name}_ms" for name in ("linear", "attention", "head", "sample")}


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `begin` and `end` are shares of the request's time, 0 to 1."""

    span: Span
    depth: int
    begin: float
    end: float
    kind: str
    """"phase", "stage", "recovery" or "error"."""
    parts: Mapping[str, float]
    """Of a stage: shares of wire, wait and compute in its span's time; what is missing to 1 was another stage's turn.
    Empty for others.
    """
    note: str
    """What the span says besides, in a few words."""


def rows(request: RequestSpans) -> list[Row]:
    """The lines of a request: children below their parents, in the order of their starts."""
    children: dict[str, list[Span]] = defaultdict(list)
    for span in request.spans[1:]:
        children[span.parent_span_id].append(span)
    root = request.spans[0]
    found: list[Row] = []
    todo = [(root, 0)]
    while todo:
        span, depth = todo.pop()
        found.append(_row(span, depth, root))
        below = sorted(children[span.span_id], key=lambda each: (each.start_ns, each.name))
        todo += [(child, depth + 1) for child in reversed(below)]
    return found


def milliseconds(ns: float) -> str:
    """As a person reads them: three digits that count."""
    value = ns / 1e6
    if value >= 10_000:
        return f"{value / 1e3:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def _row(span: Span, depth: int, root: Span) -> Row:
    whole = max(root.duration_ns, 1)
    begin = min(max((span.start_ns - root.start_ns) / whole, 0.0), 1.0)
    end = min(max((span.end_ns - root.start_ns) / whole, begin), 1.0)
    return Row(span, depth, begin, end, _kind(span), _parts(span), _note(span))


def _kind(span: Span) -> str:
    if span.error:
        return "error"
    if span.name in {"recovery", "detect", "rebuild", "recompute"}:
        return "recovery"
    return "stage" if span.name.startswith("stage ") else "phase"


def _parts(span: Span) -> dict[str, float]:
    times = {name: _number(span.attributes.get(key)) for name, key in _PARTS.items()}
    whole = max(sum(times.values()), span.duration_ns / 1e6)
    return {name: time / whole for name, time in times.items()} if whole > 0 and any(times.values()) else {}


def _note(span: Span) -> str:
    get = span.attributes.get
    if span.name == "recovery":
        lost = ", ".join(map(str, _items(get("trireme.recovery.stages")))) or "none"
        method, kv = get("trireme.recovery.method"), get("trireme.recovery.kv")
        return f"{get('trireme.recovery.cause')}; stages lost {lost}; processes {method}, keys and values {kv}"
    if span.name.startswith("stage "):
        return _stage_note(span)
    counts = {
        "tokens": get("trireme.tokens"),
        "cached": get("gen_ai.usage.cache_read.input_tokens"),
        "pages restored": get("trireme.restored_pages"),
        "recomputed": get("trireme.recomputed_tokens"),
        "spans left out": get("trireme.spans_left_out"),
    }
    said = [f"{value} {name}" for name, value in counts.items() if value]
    if error := get("error.type"):
        said.append(str(error))
    return ", ".join(said)


def _stage_note(span: Span) -> str:
    get = span.attributes.get
    times = {name: _number(get(key)) for name, key in (_PARTS | _SPLIT).items() if key in span.attributes}
    whole = max(sum(times.get(name, 0.0) for name in _PARTS), span.duration_ns / 1e6) or 1.0
    said = [f"{name} {time / whole:.0%}" for name, time in times.items() if name in _PARTS]
    split = [f"{name} {time / whole:.0%}" for name, time in times.items() if name in _SPLIT]
    text = ", ".join(said) + (f" ({', '.join(split)})" if split else "")
    if (slowest := get("trireme.slowest_ms")) is not None:
        text += f"; {get('trireme.frames')} steps, slowest {milliseconds(_number(slowest) * 1e6)}"
    return text


def _number(value: SpanValue | None) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _items(value: SpanValue | None) -> tuple[SpanValue, ...]:
    return value if isinstance(value, tuple) else ()
