"""The waterfall as one HTML page: no script, nothing from elsewhere, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from trireme.traces import RequestSpans, SpanValue
from trireme.waterfall.rows import Row, milliseconds, rows

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""
_LEGEND = ("phase", "wire", "wait", "compute", "recovery", "error")
_TICKS = 5


def page(requests: Iterable[RequestSpans]) -> str:
    """The page of a trace: one waterfall for each of its requests."""
    shown = list(requests)
    title = f"Trace {shown[0].summary.trace_id}" if shown else "Trace"
    style = files("trireme.waterfall").joinpath("page.css").read_text()
    head = (
        f"{_HEAD}<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
    )
    return head + "\n".join(map(_request, shown)) + "</body>\n</html>\n"


def _request(request: RequestSpans) -> str:
    lines = rows(request)
    legend = "".join(f'<span><i class="{kind}"></i>{kind}</span>' for kind in _LEGEND)
    return (
        f"<section>\n<h2>Request {escape(request.summary.request_id)}</h2>\n{_facts(request)}"
        f'<p class="legend">{legend}</p>\n<div class="waterfall">\n{_axis(request)}'
        + "\n".join(map(_line, lines))
        + "\n</div>\n</section>\n"
    )


def _facts(request: RequestSpans) -> str:
    s = request.summary
    when = datetime.fromtimestamp(s.start_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    facts = {
        "outcome": s.outcome,
        "total": milliseconds(s.duration_ns),
        "first token": milliseconds(s.first_token_ns) if s.first_token_ns else "none",
        "prompt tokens": str(s.prompt_tokens),
        "answer tokens": str(s.completion_tokens),
        "recoveries": str(s.recoveries),
        "began": f"{when} UTC",
        "delivered": s.kept or "no",
    }
    return "<dl>" + "".join(f"<div><dt>{n}</dt><dd>{escape(v)}</dd></div>" for n, v in facts.items()) + "</dl>\n"


def _axis(request: RequestSpans) -> str:
    whole = request.spans[0].duration_ns
    marks = "".join(
        f'<span style="left:{100 * i / _TICKS:.4g}%">{milliseconds(whole * i / _TICKS) if i else "0"}</span>'
        for i in range(_TICKS)
    )
    return f'<div class="axis"><div></div><div></div><div class="ticks">{marks}</div></div>\n'


def _line(row: Row) -> str:
    span = row.span
    name = f'<span class="name" style="padding-left:{1.1 * row.depth:.4g}em">{escape(span.name)}</span>'
    time = f'<span class="time">{milliseconds(span.duration_ns)}</span>'
    where = f"left:{100 * row.begin:.5g}%;width:{100 * (row.end - row.begin):.5g}%"
    kind = f"{row.kind} parted" if row.parts else row.kind
    bar = f'<span class="lane"><span class="bar {kind}" style="{where}">{_parts(row)}</span></span>'
    return f"<details><summary>{name}{time}{bar}</summary>\n{_details(row)}</details>"


def _parts(row: Row) -> str:
    return "".join(f'<i class="{part}" style="width:{100 * share:.5g}%"></i>' for part, share in row.parts.items())


def _details(row: Row) -> str:
    process = row.span.process
    pid = f", process {process.process_id}" if process.process_id else ""
    said = {"process": f"{process.service} {process.instance}{pid}", "span": row.span.span_id}
    said |= {name: _shown(value) for name, value in row.span.attributes.items()}
    note = f"<p>{escape(row.note)}</p>" if row.note else ""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in said.items())
    return f'<div class="said">{note}<table>{cells}</table></div>\n'


def _shown(value: SpanValue) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
