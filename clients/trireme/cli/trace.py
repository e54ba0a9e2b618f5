"""`trireme trace`: where the time of recent requests went, from the server's own memory."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from trireme import Client, RecentTraces, RequestSpans, waterfall
from trireme.cli import options, output
from trireme.waterfall.rows import milliseconds
from trireme.waterfall.terminal import plain


def trace(
    which: Annotated[
        str | None, typer.Argument(metavar="ID", help="A trace id or a request id. Without one: the recent requests.")
    ] = None,
    target: options.Target = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many recent requests to list.")] = 20,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the waterfall as a page, too.")] = None,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where a request's time went, stage by stage; without an ID, list the recent requests.

    Needs no tracing backend: the server keeps the last ones in memory.
    """
    if which is None and html is not None:
        raise typer.BadParameter("--html needs the ID of a trace", param_hint="--html")
    with Client(target) as client:
        if which is None:
            _list(client.traces(limit, timeout=timeout), as_json=as_json)
            return
        found = client.trace(which, timeout=timeout)
    if html is not None:
        html.write_text(waterfall.page(found), encoding="utf-8")
        output.note(f"Wrote {html}.")
    if as_json:
        output.write_json({"requests": [_json(request) for request in found]})
    elif html is None:
        for request in found:
            _show(request)


def _list(recent: RecentTraces, *, as_json: bool) -> None:
    if as_json:
        output.write_json(dataclasses.asdict(recent))
        return
    made = output.columns("trace", "began", "outcome", "total", "first token", "tokens", "recoveries", "delivered")
    for each in recent.traces:
        first = milliseconds(each.first_token_ns) if each.first_token_ns else "-"
        began = output.moment(datetime.fromtimestamp(each.start_ns / 1e9, UTC))
        counts = str(each.completion_tokens), str(each.recoveries)
        named = plain(each.trace_id), began, plain(each.outcome)
        made.add_row(*named, milliseconds(each.duration_ns), first, *counts, plain(each.kept) or "-")
    output.write_table(made)
    if recent.delivering:
        output.note(f"{recent.spans_delivered} spans delivered to the collector, {recent.spans_lost} lost")


def _show(request: RequestSpans) -> None:
    s = request.summary
    first = f"first token after {milliseconds(s.first_token_ns)}, " if s.first_token_ns else ""
    output.note(
        f"request {plain(s.request_id)}: {plain(s.outcome)}, {s.prompt_tokens} prompt and {s.completion_tokens} answer"
        f" tokens, {first}{milliseconds(s.duration_ns)} in all, {s.recoveries} recoveries"
    )
    output.write_table(waterfall.table(request))


def _json(request: RequestSpans) -> dict[str, Any]:
    spans = [
        {field.name: getattr(span, field.name) for field in dataclasses.fields(span)}
        | {"process": dataclasses.asdict(span.process), "attributes": dict(span.attributes)}
        for span in request.spans
    ]
    return {"summary": dataclasses.asdict(request.summary), "spans": spans}
