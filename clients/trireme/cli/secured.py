"""The options of every command that calls a server about how it is called: API key, certificates. `secured` adds them.

Names of files go into the environment, where each client that the command makes finds them; a key does not.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from trireme import _config
from trireme_proto.errors import InvalidRequest

_PANEL = "Security"
_KEY = {"api_key_file": "File with the API key, or - for standard input. Default: the key in TRIREME_API_KEY."}
_INSECURE = "Send the API key to another machine without TLS."
_LONGEST = 8 << 10
_FILES = {
    "ca": "CA of the server's certificate, PEM, or the word system; the call goes by TLS. Default: TRIREME_CA.",
    "cert": "Certificate to show to the server, PEM. Default: TRIREME_CERT.",
    "key": "Key of that certificate, PEM. Default: TRIREME_KEY.",
}


def secured(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with these options after its own."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> Any:
        _config.use_files({name: kwargs.pop(name) for name in _FILES})
        file, insecure = kwargs.pop("api_key_file"), kwargs.pop("insecure_api_key")
        _config.use_api_key(None if file is None else _key(file), insecure=insecure)
        return command(*args, **kwargs)

    files = [_option(name, text) for name, text in (_KEY | _FILES).items()]
    parameters = [*signature.parameters.values(), *files, _flag("insecure_api_key", _INSECURE)]
    vars(call)["__signature__"] = signature.replace(parameters=parameters)
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _key(file: str) -> str:
    """The key in a file; "-": on standard input. InvalidRequest where there is none."""
    try:
        text = sys.stdin.readline(_LONGEST) if file == "-" else Path(file).read_text(encoding="ascii")[:_LONGEST]
    except UnicodeDecodeError as error:
        raise InvalidRequest("The file given with --api-key-file holds no key.") from error
    if not (key := text.strip()):
        raise InvalidRequest("The file given with --api-key-file is empty.")
    return key


def _flag(name: str, text: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, rich_help_panel=_PANEL, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])


def _option(name: str, text: str) -> inspect.Parameter:
    option = typer.Option(
        f"--{name.replace('_', '-')}", metavar="FILE", help=text, rich_help_panel=_PANEL, show_default=False
    )
    annotation = Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
