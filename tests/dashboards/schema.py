"""A dashboard against Grafana's own schema, as its SDK has it in types: unknown fields, wrong types, wrong words.

The SDK's classes are generated from Grafana's schema, but reading JSON with them checks nothing: this does.
"""

from __future__ import annotations

import enum
import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()


def mistakes(data: dict[str, Any]) -> list[str]:
    """Where a dashboard is not what the schema says; one sentence each."""
    read = Dashboard.from_json(data)
    kept = json.loads(JSONEncoder().encode(read))
    return [*_unknown(data, kept, "dashboard"), *_wrong(read, Dashboard, "dashboard")]


def _unknown(given: Any, kept: Any, where: str) -> Iterator[str]:
    """Fields that reading and writing does not keep: the schema does not have them."""
    match given, kept:
        case dict(), dict():
            for name, value in given.items():
                if name not in kept:
                    yield f"{where} has no field {name}"
                else:
                    yield from _unknown(value, kept[name], f"{where}.{name}")
        case list(), list():
            for i, (a, b) in enumerate(zip(given, kept, strict=True)):
                yield from _unknown(a, b, f"{where}[{i}]")
        case _ if given != kept:
            yield f"{where} is {given!r}, read as {kept!r}"


def _wrong(value: Any, hint: Any, where: str) -> Iterator[str]:  # noqa: C901  one case for each kind of type
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (typing.Any, object):
        if hasattr(value, "to_json"):  # options and custom parts of a panel's own type
            yield from _fields(value, where)
    elif origin in (typing.Union, types.UnionType):
        found = [list(_wrong(value, each, where)) for each in arguments]
        yield from [] if [] in found else found[0]
    elif origin is typing.Literal:
        yield from [] if value in arguments else [f"{where} is {value!r}, not one of {arguments}"]
    elif origin is list:
        yield from _each(enumerate(value), arguments[0], where) if isinstance(value, list) else [f"{where} is no list"]
    elif origin is dict:
        yield from _each(value.items(), arguments[1], where) if isinstance(value, dict) else [f"{where} is no object"]
    elif issubclass(hint, enum.Enum):
        yield from [] if value in [each.value for each in hint] else [f"{where} is {value!r}, no {hint.__name__}"]
    elif isinstance(value, dict) and hasattr(hint, "from_json"):  # where reading leaves a field as it is
        read = hint.from_json(value)
        yield from _unknown(value, read.to_json(), where)
        yield from _fields(read, where)
    elif not isinstance(value, (int, float) if hint is float else hint) or (hint is not bool and value is True):
        yield f"{where} is {value!r}, no {hint.__name__}"
    elif hasattr(value, "to_json"):
        yield from _fields(value, where)


def _each(items: Any, hint: Any, where: str) -> Iterator[str]:
    for key, value in items:
        yield from _wrong(value, hint, f"{where}[{key!r}]")


def _fields(value: Any, where: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(type(value), vars(sys.modules[type(value).__module__])).items():
        yield from _wrong(getattr(value, name), hint, f"{where}.{name}")
