"""`trireme sessions`: the conversations that the server keeps."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Annotated, Any

import typer

from trireme import Client, Session
from trireme.cli import options, output

app = typer.Typer(help="List, show and delete conversations.")
SessionArgument = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]


@app.command("list")
def list_sessions(target: options.Target = None, as_json: options.AsJson = False) -> None:
    """List the sessions, the most recently used first."""
    with Client(target) as client:
        found = list(client.sessions.list())
    if as_json:
        output.write_json({"sessions": [_json(session) for session in found]})
        return
    table = output.columns("session", "tokens", "model", "created", "last used", "expires")
    for session in found:
        moments = map(output.moment, (session.created, session.last_used, session.expires))
        table.add_row(session.session_id, str(session.token_count), session.model, *moments)
    output.write_table(table)


@app.command()
def get(session: SessionArgument, target: options.Target = None, as_json: options.AsJson = False) -> None:
    """Show one session with its text."""
    with Client(target) as client:
        found = client.sessions.get(session, include_tokens=True)
        text = client.detokenize(found.token_ids or ())
    if as_json:
        output.write_json({**_json(found), "text": text})
        return
    table = output.pairs()
    for name, value in _json(found).items():
        if name != "token_ids":
            table.add_row(name.replace("_", " "), str(value))
    output.write_table(table)
    output.write_text(text + "\n")


@app.command()
def delete(session: SessionArgument, target: options.Target = None) -> None:
    """Forget a session."""
    with Client(target) as client:
        client.sessions.delete(session)
    output.note(f"Session {session} is deleted.")


def _json(session: Session) -> dict[str, Any]:
    """Fields of a session, those that were asked for; points in time as ISO 8601."""
    fields = {name: value for name, value in dataclasses.asdict(session).items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}
