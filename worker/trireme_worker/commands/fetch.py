"""`trireme fetch`: a pack from a URL or a folder onto this machine's disk, with a progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def fetch(
    source: Annotated[str, typer.Argument(help="URL (http, https, s3, file) or folder of the pack.")],
    dst: Annotated[Path, typer.Argument(help="Folder to make; a pack that is there already gets what it lacks.")],
    layers: Annotated[
        str | None, typer.Option(metavar="FIRST:END", help="Only what these layers need, END not included.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy a pack, or the part of it that some layers need.

    Every file is checked against the manifest's SHA-256. What was broken off goes on where it was when the command is
    given again; the folder appears when all is there.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from trireme_worker.pack import fetch as fetch_pack

    wanted = None if layers is None else _range(layers)
    columns = TextColumn("Fetching"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("fetch", total=None)
        made = fetch_pack(
            source,
            dst,
            layers=wanted,
            recheck=True,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        found = {"model": made.manifest.config.name, "pack_sha256": made.sha256, "copied_bytes": made.copied}
        print(json.dumps(found))
    else:
        print(f"{dst}: {made.manifest.config.name}, {made.copied / 1e6:,.1f} MB copied, checked")


def _range(text: str) -> range:
    first, _, end = text.partition(":")
    if not (first.isascii() and first.isdigit() and end.isascii() and end.isdigit() and int(first) < int(end)):
        raise typer.BadParameter(f"'{text[:40]}' is not FIRST:END, such as 0:40.", param_hint="--layers")
    return range(int(first), int(end))
