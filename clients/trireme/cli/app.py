"""The tree of commands. Each command's module is imported here; none of them imports the server or heavy libraries."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from trireme.cli import bench, chat, demo, generate, profile, sessions, status, trace
from trireme.cli.lazy import LazyGroup
from trireme.cli.secured import secured

app = typer.Typer(
    name="trireme",
    cls=LazyGroup,
    help="Serve ternary language models on CPUs, and talk to them.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("generate")(secured(generate.generate))
app.command("chat")(secured(chat.chat))
app.command("status")(secured(status.status))
app.command("profile")(secured(profile.profile))
app.command("trace")(secured(trace.trace))
app.add_typer(sessions.app, name="sessions")
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")


@app.command("version")
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("trireme-inference"))


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve ternary language models on CPUs, and talk to them."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
