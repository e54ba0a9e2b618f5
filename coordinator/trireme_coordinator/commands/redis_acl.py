"""`trireme redis-acl`: the line that gives Redis a user for Trireme."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer


def redis_acl(
    user: Annotated[str, typer.Option(help="Its name.")] = "trireme",
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its password; - is standard input. Default: a new one.")
    ] = None,
    pages: Annotated[bool, typer.Option(help="Whether it may keep KV pages (serve --kv-store-gb).")] = True,
    command: Annotated[
        bool, typer.Option("--command", help="As a command for redis-cli, instead of a line for redis.conf.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print a Redis user who may run only our commands on only our keys.

    The line goes into redis.conf or the file of users; it holds the password's SHA-256, not the password. Add
    "user default off", so that nobody comes in as anybody else.
    """
    from trireme_coordinator.redis_acl import acl_line

    password = _given(password_file) if password_file else secrets.token_urlsafe(32)
    line = acl_line(user, password, pages=pages)
    if command:
        line = line.replace("user", "ACL SETUSER", 1)
    if as_json:
        print(json.dumps({"user": user, "line": line} | ({} if password_file else {"password": password})))
        return
    print(line)
    if not password_file:
        print(f"Its password, made now and shown this once: {password}", file=sys.stderr)


def _given(file: Path) -> str:
    text = sys.stdin.readline() if str(file) == "-" else file.read_text()
    return text.rstrip("\r\n")
