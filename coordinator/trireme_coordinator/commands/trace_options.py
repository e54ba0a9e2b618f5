"""Options of `trireme serve` for traces; see `trace_settings.py`."""

from __future__ import annotations

from typing import Annotated

import typer

_GROUP = "Traces"
Share = Annotated[
    float | None,
    typer.Option(
        help="Share of requests traced to the collector for no special reason, 0 to 1. Default: 0.1.",
        rich_help_panel=_GROUP,
    ),
]
SlowMs = Annotated[
    int | None,
    typer.Option(
        help="Requests with a wait longer than this for a token are always traced. Default: 2000.",
        rich_help_panel=_GROUP,
    ),
]
BufferMb = Annotated[
    int | None,
    typer.Option(help="Memory for `trireme trace`, in MiB; 0: none. Default: 16.", rich_help_panel=_GROUP),
]
