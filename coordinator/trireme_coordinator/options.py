"""Groups of settings in files of their own: a frozen dataclass each, which ServeConfig inherits, and whose fields bring
their help along. `with_options` gives a command one option for each of them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer


def text(meaning: str) -> Mapping[str, str]:
    """Metadata of a field: what `--help` says about it."""
    return {"help": meaning}


def with_options(panel: str, group: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command that takes **kwargs, or that is decorated so already: adds the fields of `group` (text, numbers,
    flags) as options. None: not given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]

        @functools.wraps(command)
        def call(*args: Any, **kwargs: Any) -> None:
            command(*args, **kwargs)

        parameters = [*own, *(_parameter(field, panel) for field in dataclasses.fields(group))]
        vars(call)["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
        call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return call

    return decorate


def _parameter(field: dataclasses.Field[Any], panel: str) -> inspect.Parameter:
    kind: Any = type(field.default)
    names = [f"--{field.name.replace('_', '-')}"]
    option = typer.Option(*names, help=field.metadata["help"], rich_help_panel=panel, show_default=False)
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
