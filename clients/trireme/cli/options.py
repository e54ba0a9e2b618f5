"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

Target = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT[,...]", help="The server, or several. Default: TRIREME_TARGET, else localhost:50051."
    ),
]
MaxTokens = Annotated[int | None, typer.Option(help="The most tokens to generate. Default: what the context holds.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy, up to 100. Default: the model's own.")]
TopK = Annotated[int | None, typer.Option(help="Keep the k most probable tokens; 0 keeps all.")]
TopP = Annotated[float | None, typer.Option(help="Keep the most probable tokens that add up to this, up to 1.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text. Default: drawn by the server.")]
SessionId = Annotated[str | None, typer.Option("--session", metavar="ID", help="Continue this conversation.")]
Stop = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="End before this text. May be given up to 8 times.")
]
Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Give up after so long. Default: 600.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
