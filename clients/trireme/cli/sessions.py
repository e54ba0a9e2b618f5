"""`trireme sessions`: the conversations that the server keeps."""

from __future__ import annotations

import dataclasses
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from trireme import Client, Session
from trireme.cli import options, output
from trireme.cli.secured import secured

app = typer.Typer(help="List, show, copy, rewind, export, import and delete conversations.")
_STANDARD = Path("-")
SessionArgument = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]


@app.command("list")
@secured
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
@secured
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
@secured
def delete(session: SessionArgument, target: options.Target = None) -> None:
    """Forget a session."""
    with Client(target) as client:
        client.sessions.delete(session)
    output.note(f"Session {session} is deleted.")


@app.command()
@secured
def fork(
    session: SessionArgument,
    at: Annotated[int | None, typer.Option(metavar="TOKENS", help="Tokens to begin with. Default: all.")] = None,
    target: options.Target = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a new session of the first tokens of one, which stays as it is."""
    with Client(target) as client:
        _show(client.sessions.fork(session, at), as_json)


@app.command()
@secured
def rewind(
    session: SessionArgument,
    at: Annotated[int, typer.Argument(metavar="TOKENS", help="Tokens to keep.")],
    target: options.Target = None,
    as_json: options.AsJson = False,
) -> None:
    """Take the last tokens of a session away."""
    with Client(target) as client:
        _show(client.sessions.rewind(session, at), as_json)


@app.command("export")
@secured
def export_session(
    session: SessionArgument,
    file: Annotated[Path, typer.Argument(help="Where to write it; - is standard output.")],
    target: options.Target = None,
) -> None:
    """Write a session to a file that any server with the same model can import."""
    with Client(target) as client:
        archive = client.sessions.export(session)
    if file == _STANDARD:
        sys.stdout.buffer.write(archive)
        return
    file.write_bytes(archive)
    output.note(f"Session {session} is in {file} ({len(archive)} bytes).")


@app.command("import")
@secured
def import_session(
    file: Annotated[Path, typer.Argument(help="What export wrote; - is standard input.")],
    ttl_seconds: Annotated[
        int | None, typer.Option(help="Seconds it lives without use. Default: as the exported one.")
    ] = None,
    target: options.Target = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a new session of an exported one."""
    archive = sys.stdin.buffer.read() if file == _STANDARD else file.read_bytes()
    with Client(target) as client:
        _show(client.sessions.import_(archive, ttl_seconds), as_json)


def _show(session: Session, as_json: bool) -> None:
    """A session that was made or changed: its id alone on standard output, for scripts."""
    if as_json:
        output.write_json(_json(session))
        return
    output.write_text(session.session_id + "\n")
    output.note(f"It has {session.token_count} tokens. To go on: trireme chat --session {session.session_id}")


def _json(session: Session) -> dict[str, Any]:
    """Fields of a session, those that were asked for; points in time as ISO 8601."""
    fields = {name: value for name, value in dataclasses.asdict(session).items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}
