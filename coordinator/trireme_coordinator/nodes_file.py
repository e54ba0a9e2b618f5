"""nodes.yaml: machines, as a person or `trireme probe` writes them down. Read strictly, because a plan is believed.

    nodes:
      - name: big-1            # any text, once
        ram_gb: 64             # free memory, GB (10**9 bytes)
        read_gb_s: 38.5        # plain read bandwidth of all cores together
        int8_gmac_s: 2100      # peak of the int8 dot product of all cores together, 10**9 multiply-adds a second
        cores: 16              # these three may be left out
        rtt_ms: 0.2            # round trip to its neighbours
        link_gbit_s: 10

Every mistake is a ConfigurationError that names the node and the key. Anchors and aliases are refused: a few hundred
bytes of them can stand for gigabytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trireme_coordinator.placement import Machine
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_HIGHEST: Mapping[str, float] = {
    "ram_gb": 1e6,
    "read_gb_s": 1e5,
    "int8_gmac_s": 1e7,
    "cores": 65536,
    "rtt_ms": 60_000,
    "link_gbit_s": 1e5,
}
_NEEDED = ("name", "ram_gb", "read_gb_s", "int8_gmac_s")
_MAX_NAME = 128
_SHOWN = 40
_EXPONENT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?[eE][+]?(?P<exponent>[0-9]{1,2})")
_HUGE = 1 << 64


class _Loader(yaml.SafeLoader):
    """Plain values only; no aliases, no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses aliases, before anything is made of them."""
        if self.check_event(yaml.AliasEvent):
            raise ConfigurationError("The nodes file uses YAML aliases (*name); write every node out.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a key that comes twice: one of the two values would be ignored."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise ConfigurationError(f"The nodes file says {_shown(twice[0])} twice in one place.")
        return super().construct_mapping(node, deep=deep)


def read_nodes(path: Path) -> tuple[Machine, ...]:
    """The machines in a file. ConfigurationError for every mistake."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.nodes_file_bytes + 1)
    except OSError as fault:
        reason = fault.strerror or "input/output error"
        raise ConfigurationError(f"The nodes file {path.name!r} cannot be read: {reason}.") from fault
    return parse_nodes(data)


def parse_nodes(data: bytes) -> tuple[Machine, ...]:
    """The machines in the bytes of a file."""
    if len(data) > LIMITS.nodes_file_bytes:
        raise ConfigurationError(f"The nodes file is larger than {LIMITS.nodes_file_bytes} bytes.")
    try:
        value = yaml.load(data, _Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as fault:
        where = f" in line {fault.problem_mark.line + 1}" if fault.problem_mark else ""
        raise ConfigurationError(f"The nodes file is not valid YAML{where}.") from fault
    except (yaml.YAMLError, ValueError) as fault:  # ValueError: a date that does not exist, a number of 5,000 digits
        raise ConfigurationError("The nodes file is not valid YAML.") from fault
    except RecursionError as fault:
        raise ConfigurationError("The nodes file is nested too deeply.") from fault
    return _machines(value)


def write_nodes(machines: Iterable[Machine]) -> str:
    """The text of a nodes file."""
    return yaml.safe_dump({"nodes": [node_json(each) for each in machines]}, sort_keys=False, allow_unicode=True)


def node_json(machine: Machine) -> dict[str, Any]:
    """One node, with the keys of the file."""
    fields = {name: getattr(machine, name) for name in ("name", *_HIGHEST)}
    return {name: value for name, value in fields.items() if value is not None}


def check_machines(machines: tuple[Machine, ...]) -> tuple[Machine, ...]:
    """ConfigurationError: none or too many, a name twice, a name or a number out of range."""
    if not 1 <= len(machines) <= LIMITS.plan_nodes:
        raise ConfigurationError(f"There are {len(machines)} nodes; a plan is for 1 to {LIMITS.plan_nodes}.")
    seen: set[str] = set()
    for i, machine in enumerate(machines, 1):
        where = f"node {i} ({_shown(machine.name)})"
        if not (0 < len(machine.name) <= _MAX_NAME and machine.name.isprintable()):
            raise ConfigurationError(f"node {i}: name must be 1 to {_MAX_NAME} printable characters.")
        if machine.name in seen:
            raise ConfigurationError(f"{where}: another node has that name.")
        seen.add(machine.name)
        for name, highest in _HIGHEST.items():
            _check_number(where, name, getattr(machine, name), highest)
    return machines


def _check_number(where: str, name: str, value: float | None, highest: float) -> None:
    lowest_included = name == "rtt_ms"
    if value is None or (0 < value <= highest) or (lowest_included and value == 0):
        return
    above = "from 0" if lowest_included else "above 0,"
    raise ConfigurationError(f"{where}: {name} is {value:g}; it must be {above} up to {highest:g}.")


def _machines(value: object) -> tuple[Machine, ...]:
    if not isinstance(value, dict):
        raise ConfigurationError("The nodes file must have a key 'nodes' with a list of nodes.")
    if unknown := [key for key in value if key != "nodes"]:
        raise ConfigurationError(f"The nodes file has the unknown key {_shown(unknown[0])}; it knows 'nodes' only.")
    nodes = value.get("nodes")
    if not isinstance(nodes, list):
        raise ConfigurationError("'nodes' in the nodes file is not a list.")
    if len(nodes) > LIMITS.plan_nodes:
        raise ConfigurationError(f"There are {len(nodes)} nodes; a plan is for 1 to {LIMITS.plan_nodes}.")
    return check_machines(tuple(_machine(i, node) for i, node in enumerate(nodes, 1)))


def _machine(number: int, value: object) -> Machine:
    if not isinstance(value, dict):
        raise ConfigurationError(f"node {number} is not a mapping of keys to values.")
    name = value.get("name")
    where = f"node {number} ({_shown(name)})" if isinstance(name, str) else f"node {number}"
    known = ("name", *_HIGHEST)
    if unknown := [key for key in value if key not in known]:
        raise ConfigurationError(f"{where}: {_shown(unknown[0])} is unknown; the keys are {', '.join(known)}.")
    if missing := [key for key in _NEEDED if key not in value]:
        raise ConfigurationError(f"{where}: {missing[0]} is missing.")
    if not isinstance(name, str):
        raise ConfigurationError(f"{where}: name is not a text; put it in quotes.")
    numbers = {key: _number(where, key, each) for key, each in value.items() if key != "name"}
    return Machine(name=name, **numbers)


def _number(where: str, name: str, value: object) -> Any:
    """The value as it is, when it is a finite number; whole for `cores`."""
    whole = name == "cores"
    good = (type(value) is float and not whole and math.isfinite(value)) or (type(value) is int and abs(value) < _HUGE)
    if not good:
        kind = "whole number" if whole else "number"
        raise ConfigurationError(f"{where}: {name} is {_shown(value)}, not a {kind}{_plain(value)}.")
    return value


def _plain(value: object) -> str:
    """What to write in place of such as 1e3, which YAML 1.1 reads as text."""
    match = _EXPONENT.fullmatch(value) if isinstance(value, str) else None
    return (
        f": write {float(match[0]):.15g} without quotes or exponent" if match and int(match["exponent"]) <= 12 else ""
    )


def _shown(value: object) -> str:
    """A value for a message: short, printable; of a collection only what it is."""
    if isinstance(value, (list, dict, set, tuple)):
        return "a collection"
    if type(value) is int and abs(value) >= _HUGE:
        return "a huge number"
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
