"""`trireme probe`: what this machine can do, as a node of nodes.yaml."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Annotated

import typer


def probe(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write, such as nodes.yaml. Default: standard output.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the node. Default: the machine's host name.")] = None,
    threads: Annotated[int, typer.Option(min=0, max=128, help="That measure together. 0: one for each CPU.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this machine for `trireme plan`: free memory, read bandwidth, rate of int8 products.

    Takes under two seconds once the kernels are compiled. Measure while nothing else is busy.
    """
    from rich.console import Console

    from trireme_coordinator.nodes_file import check_machines, node_json, write_nodes
    from trireme_coordinator.probing import machine_of
    from trireme_proto.errors import ConfigurationError
    from trireme_worker.probe import measure

    with Console(stderr=True).status("Measuring (the first run compiles the kernels)"):
        measured = measure(threads)
    machines = check_machines((machine_of(name or socket.gethostname() or "node", measured),))
    if out is not None:
        try:
            _write(out, write_nodes(machines))
        except OSError as fault:
            reason = fault.strerror or "input/output error"
            raise ConfigurationError(f"cannot write {out.name!r}: {reason}") from fault
    if as_json:
        print(json.dumps({"nodes": [node_json(machines[0])]}))
    elif out is None:
        print(write_nodes(machines), end="")
    else:
        print(f"{out}: {machines[0].read_gb_s} GB/s, {machines[0].int8_gmac_s} GMAC/s, {machines[0].ram_gb} GB free")


def _write(out: Path, text: str) -> None:
    """Whole or not at all: a full disk must not cost a file that is there already.  OSError."""
    if out.exists() and not out.is_file():
        out.write_text(text, "utf-8")  # a device or a pipe
        return
    out = out.resolve()  # what a link points at is replaced, not the link
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
