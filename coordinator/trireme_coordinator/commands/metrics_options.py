"""The options of `serve` about metrics and logs."""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Metrics and logs"

Listen = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of an HTTP server with /metrics, /healthz and /readyz. Default: none.", rich_help_panel=_PANEL
    ),
]
Hosts = Annotated[
    str | None,
    typer.Option(
        help="Names, with commas between, by which it may be asked, beside addresses and this machine's own.",
        rich_help_panel=_PANEL,
    ),
]
LogFormat = Annotated[
    str | None, typer.Option(help="Log lines: console or json. Default: console.", rich_help_panel=_PANEL)
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        help="Least of what is logged: debug, info, warning or error. Default: warning.", rich_help_panel=_PANEL
    ),
]
