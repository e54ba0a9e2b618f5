"""The one file of the client that reads the environment. Knows nothing of calls and commands.

TRIREME_TARGET  address of the server, HOST:PORT, where none is given; else localhost:50051
TRIREME_CA      file of the CA that the server's certificate comes from, or the word system; calls go by TLS then
TRIREME_CERT    file of the certificate that this client shows, and of its key:
TRIREME_KEY
TRIREME_API_KEY the API key, or token, that is sent with each call
TRIREME_DEBUG   1: the command line shows tracebacks
GRPC_VERBOSITY  gRPC's own; where it is not set, gRPC is told to keep what it notes about connections to itself, since
                that reaches the caller as an error. gRPC looks when it is loaded: the package imports this file first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

DEFAULT_PORT = 50051
DEFAULT_TARGET = f"localhost:{DEFAULT_PORT}"


@dataclass(slots=True)
class _Used:
    api_key: str = ""
    insecure: bool = False


_used = _Used()


def default_target() -> str:
    """Where to call when the caller names no server."""
    return os.environ.get("TRIREME_TARGET") or DEFAULT_TARGET


def file_of(what: str, given: str | os.PathLike[str] | None) -> str:
    """The name of a file: what the caller gave, else the environment's; "": neither."""
    return os.environ.get(f"TRIREME_{what}", "") if given is None else os.fspath(given)


def api_key() -> str:
    """What is sent with each call when the caller gives none; "": nothing."""
    return _used.api_key or os.environ.get("TRIREME_API_KEY", "")


def insecure_api_key() -> bool:
    """Whether a person said that the key may travel readable."""
    return _used.insecure


def use_api_key(key: str | None, *, insecure: bool) -> None:
    """For the rest of this process, what a command was given. Not in the environment, which other processes inherit."""
    _used.api_key, _used.insecure = key or "", insecure


def use_files(files: Mapping[str, str | None]) -> None:
    """For the rest of this process, what a command was given, by name ("ca", "cert", "key"); None: not given."""
    os.environ |= {f"TRIREME_{what.upper()}": file for what, file in files.items() if file is not None}


def debug() -> bool:
    """Whether a person asked for tracebacks."""
    return os.environ.get("TRIREME_DEBUG", "") not in {"", "0"}
