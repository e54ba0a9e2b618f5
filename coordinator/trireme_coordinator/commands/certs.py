"""`trireme certs`: certificates for a try-out."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

certs = typer.Typer(help="Make certificates for TLS.")

_USE = """\
serve with:    --tls-cert {0}/server.crt --tls-key {0}/server.key --stage-tls-dir {0}/stage
               --tls-client-ca {0}/ca.crt where clients must show a certificate
clients with:  --ca {0}/ca.crt, and --cert {0}/client.crt --key {0}/client.key where they must"""


@certs.callback()
def _group() -> None:
    """Keeps `dev` a command of a group, though it is the only one."""


@certs.command("dev")
def dev(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where they are written.")] = Path("certs"),
    san: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A DNS name or address that clients call; may be given several times."),
    ] = None,
    client: Annotated[str, typer.Option(metavar="NAME", help="Name in the client's certificate.")] = "client",
    days: Annotated[int, typer.Option(min=1, max=3650, help="For which they are valid.")] = 90,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a CA, and certificates of it for the server, a client and the stages.

    What is there already is kept: to replace a certificate, remove it and its key first. The server's certificate is
    for localhost, this machine's name and what is given with --san.
    """
    from trireme_coordinator.dev_certificates import make_certificates

    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *(san or ())]
    made = make_certificates(folder, list(dict.fromkeys(names)), client, days)
    if as_json:
        print(json.dumps({"folder": str(folder), "made": [str(path) for path in made]}))
        return
    print("\n".join(map(str, made)) if made else f"All of them are in {folder} already; nothing was made.")
    print(_USE.format(folder), file=sys.stderr)
