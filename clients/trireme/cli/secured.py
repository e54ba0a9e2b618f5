"""The options of every command that calls a server about how it is called: certificates. `secured` adds them.

What is given goes into the environment, where each client that the command makes finds it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from trireme import _config

_PANEL = "Security"
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
        return command(*args, **kwargs)

    parameters = [*signature.parameters.values(), *(_option(name, text) for name, text in _FILES.items())]
    vars(call)["__signature__"] = signature.replace(parameters=parameters)
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _option(name: str, text: str) -> inspect.Parameter:
    option = typer.Option(f"--{name}", metavar="FILE", help=text, rich_help_panel=_PANEL, show_default=False)
    annotation = Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
