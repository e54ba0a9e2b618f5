"""JSON from files that may be damaged or hostile, read strictly.

Owns bounds, duplicate keys, types and ranges. Knows nothing of packs or checkpoints: it raises `Malformed`, whose text
reads on after a file's name ("config.json" + ": " + "does not say hidden_size"), and the callers choose the typed
error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from trireme_proto.limits import LIMITS

_MAX_TEXT = 60


class Malformed(ValueError):
    """What is wrong with a file, in words that follow its name and a colon."""


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data` (UTF-8). Malformed: too large, too deep, not JSON, no object, a key twice, NaN."""
    if len(data) > LIMITS.manifest_bytes:
        raise Malformed(f"is larger than {LIMITS.manifest_bytes} bytes")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except Malformed:
        raise
    except RecursionError as fault:
        raise Malformed("is nested too deeply") from fault
    except ValueError as fault:
        raise Malformed("is not valid JSON") from fault
    if not isinstance(value, dict):
        raise Malformed("is not a JSON object")
    return value


def shown(value: object) -> str:
    """A value from a file, short and printable, for a message."""
    text = ascii(value)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


class Fields:
    """Takes the fields of one JSON object, each with its type and range; `finish` refuses what nobody took.

    `where` stands before a field's name in messages: "config." makes "config.layers".
    """

    def __init__(self, value: object, where: str = "") -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{where.rstrip('.') or 'the file'} is not a JSON object")
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def has(self, name: str) -> bool:
        """Whether the field is there and is not null."""
        return self._left.get(name) is not None

    def take(self, name: str) -> Any:
        """The value of a field that must be there, of any type."""
        if name not in self._left:
            raise Malformed(f"does not say {self._where}{name}")
        return self._left.pop(name)

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer in [low, high]; true and 1.0 are none."""
        value = self.take(name)
        if type(value) is not int or not low <= value <= high:
            self._refuse(name, value, f"an integer from {low} to {high}")
        return value

    def integer_or_null(self, name: str, low: int, high: int) -> int | None:
        """An integer in [low, high], or null; it must be there."""
        if name in self._left and self._left[name] is None:
            return self._left.pop(name)  # type: ignore[no-any-return]  # null, as just seen
        return self.integer(name, low, high)

    def number(self, name: str, low: float, high: float) -> float:
        """A finite number in [low, high]."""
        value = self.take(name)
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            self._refuse(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def boolean(self, name: str) -> bool:
        """A boolean; 0 and 1 are none."""
        value = self.take(name)
        if type(value) is not bool:
            self._refuse(name, value, "true or false")
        return value

    def text(self, name: str, allowed: Callable[[str], bool], rule: str) -> str:
        """A text that `allowed` accepts; `rule` says in words what that is."""
        value = self.take(name)
        if not isinstance(value, str) or not allowed(value):
            self._refuse(name, value, rule)
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of some texts."""
        return self.text(name, choices.__contains__, " or ".join(choices))

    def integers(self, name: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """A list of at most `most` integers in [low, high]."""
        values = self.take(name)
        if not isinstance(values, list) or len(values) > most:
            self._refuse(name, values, f"a list of at most {most} integers")
        if any(type(value) is not int or not low <= value <= high for value in values):
            self._refuse(name, values, f"integers from {low} to {high}")
        return tuple(values)

    def fields(self, name: str) -> Fields:
        """The fields of an object inside this one."""
        return Fields(self.take(name), f"{self._where}{shown(name)[1:-1]}.")

    def names(self) -> tuple[str, ...]:
        """Names of the fields not yet taken."""
        return tuple(self._left)

    def finish(self) -> None:
        """Refuses fields that nobody took."""
        if self._left:
            raise Malformed(f"has the unknown field {self._where}{shown(next(iter(self._left)))[1:-1]}")

    def _refuse(self, name: str, value: object, rule: str) -> NoReturn:
        raise Malformed(f"{self._where}{name} must be {rule}, not {shown(value)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("holds a key twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"holds {name}, which is not JSON")
