"""Reads YAML that a person wrote, value by value, and says in one sentence what is wrong and where.

Plain values only; no aliases, no key twice (as in nodes_file.py). Knows nothing of what the values mean.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import yaml

from trireme_coordinator.nodes_file import StrictLoader
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_LONGEST = 4096


class _Loader(StrictLoader):
    what = "hosts file"


def load(path: Path) -> object:
    """The value in a file. ConfigurationError."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.nodes_file_bytes + 1)
    except OSError as fault:
        reason = fault.strerror or "input/output error"
        raise ConfigurationError(f"The hosts file '{path.name}' cannot be read: {reason}.") from fault
    if len(data) > LIMITS.nodes_file_bytes:
        raise ConfigurationError(f"The hosts file is larger than {LIMITS.nodes_file_bytes} bytes.")
    try:
        return yaml.load(data, _Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as fault:
        where = f" in line {fault.problem_mark.line + 1}" if fault.problem_mark else ""
        raise ConfigurationError(f"The hosts file is not valid YAML{where}.") from fault
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise ConfigurationError("The hosts file is not valid YAML.") from fault


class Reader:
    """One mapping, and where it is."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigurationError(f"{where} is not a mapping of keys to values.")
        self._values: dict[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        """All of them, in the file's order."""
        return list(self._values)

    def raw(self, key: str) -> Any:
        """A value as it is."""
        return self._values[key]

    def only(self, *known: str) -> Self:
        """ConfigurationError for any other key."""
        if unknown := [key for key in self._values if key not in known]:
            raise ConfigurationError(f"{self.where}: '{unknown[0][:40]}' is unknown; it knows {', '.join(known)}.")
        return self

    def part(self, key: str) -> Reader:
        """A mapping inside; empty where it is missing."""
        return Reader(self._values.get(key) or {}, f"{self.where}, '{key}'")

    def parts(self, key: str, most: int) -> list[Reader]:
        """A list of mappings, of at least one."""
        value = self._values.get(key)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise ConfigurationError(f"{self.where}: '{key}' is not a list of 1 to {most} entries.")
        return [Reader(each, f"{self.where}, {key[:-1]} {n}") for n, each in enumerate(value, 1)]

    def text(self, key: str, default: str | None, form: re.Pattern[str] | None = None) -> str:
        """`default` None: it must be there."""
        value = self._values.get(key, default)
        if value is None:
            raise ConfigurationError(f"{self.where}: {key} is missing.")
        if not isinstance(value, str):
            raise ConfigurationError(f"{self.where}: {key} is not a text; put it in quotes.")
        if len(value) > _LONGEST or not (value.isprintable() or not value):
            raise ConfigurationError(f"{self.where}: {key} is too long or has characters that cannot be printed.")
        if form and value and value != default and not form.fullmatch(value):
            raise ConfigurationError(f"{self.where}: {key} is '{value[:40]}', which it cannot be.")
        return value

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts."""
        value = self._values.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ConfigurationError(f"{self.where}: {key} is not a list of texts.")
        return tuple(value)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number."""
        value = self._values.get(key, default)
        if type(value) is not int or (value != default and not low <= value <= high):
            raise ConfigurationError(f"{self.where}: {key} must be a whole number from {low} to {high}.")
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number; None where it is missing."""
        value = self._values.get(key)
        if value is None:
            return None
        if type(value) not in {int, float} or not low <= value <= high:
            raise ConfigurationError(f"{self.where}: {key} must be a number from {low:g} to {high:g}.")
        return float(value)

    def file(self, key: str, base: Path) -> Path:
        """A local file that is there."""
        path = base / Path(self.text(key, None)).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"{self.where}: the file of {key} is not there.")
        return path

    def folder(self, key: str, base: Path) -> Path | None:
        """A local folder that is there; None where the key is missing."""
        if key not in self._values:
            return None
        path = base / Path(self.text(key, None)).expanduser()
        if not path.is_dir():
            raise ConfigurationError(f"{self.where}: the folder of {key} is not there.")
        return path
