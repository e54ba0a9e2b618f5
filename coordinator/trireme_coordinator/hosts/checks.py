"""What keeps a host from taking part, as a sentence each. Pure: facts in, the first mistake out."""

from __future__ import annotations

from typing import Any

from trireme_coordinator.hosts.desired import COORDINATOR, OBJECT_STORE_BYTES, RAY
from trireme_coordinator.hosts.hosts_file import Host, Hosts

_LEAST_FREE_BYTES = 500 * 10**6
_INSTALL_BYTES = 2 * 10**9
_SOCKET_ROOT = 40
"""Longest name of a deployment's folder: Ray's sockets lie 67 characters deeper, and Linux allows 107."""

Facts = dict[str, Any]


def before_install(facts: Facts) -> str | None:
    """Of a host that is to get an environment of its own."""
    if not facts["writable"]:
        return "Its folder cannot be written to."
    if facts["free_bytes"] < _INSTALL_BYTES:
        return f"It has {_gb(facts['free_bytes'])} GB free; installing needs {_gb(_INSTALL_BYTES)} GB."
    return None


def mistake(hosts: Hosts, host: Host, facts: Facts, head: Facts) -> str | None:
    """The first thing that is wrong with a host, beside the one that has Ray's head."""
    if len(facts["versions"]) < 2:
        return f"Trireme is not installed for '{facts['python']}'; name another 'python', or use --install."
    return _lacks(facts) or _differs(facts, head) or _placed(hosts, facts, head) or _busy(hosts, host, facts)


def _lacks(facts: Facts) -> str | None:
    if not facts["writable"]:
        return "Its folder cannot be written to."
    if not facts["pack"]:
        return "There is no pack at the place that 'model' names (no trireme.json)."
    if facts["free_bytes"] < _LEAST_FREE_BYTES:
        return f"It has {_gb(facts['free_bytes'])} GB free; it needs {_gb(_LEAST_FREE_BYTES)} GB."
    if facts["shared_bytes"] < OBJECT_STORE_BYTES:
        return f"Its /dev/shm has {facts['shared_bytes'] >> 20} MiB free; Ray needs {OBJECT_STORE_BYTES >> 20} MiB."
    return None


def _placed(hosts: Hosts, facts: Facts, head: Facts) -> str | None:
    if len(facts["root"]) > _SOCKET_ROOT:
        return f"The folder '{facts['root']}' has too long a name for Ray's sockets; choose a shorter 'folder'."
    if hosts.stage_tls is not None and facts["root"] != head["root"]:
        return "Its folder has another path than on the first coordinator; 'tls: {stages: ...}' needs one 'folder'."
    return None


def ports(hosts: Hosts, host: Host) -> dict[int, str]:
    """Ports that must be free, with the process that wants each."""
    found = {hosts.ports.node_manager: RAY, hosts.ports.object_manager: RAY}
    if host.coordinates:
        found[hosts.ports.public] = COORDINATOR
    if host == hosts.coordinators[0]:
        found[hosts.ports.ray] = RAY
    return {port: name for port, name in found.items() if port}


def _busy(hosts: Hosts, host: Host, facts: Facts) -> str | None:
    for port, name in ports(hosts, host).items():
        if port in facts["busy"] and not facts["processes"].get(name, {}).get("left"):
            return f"Another program listens on port {port}, which {name} needs; choose another in 'ports'."
    return None


def _differs(facts: Facts, head: Facts) -> str | None:
    for n, what in enumerate(("Trireme", "Ray")):
        if facts["versions"][n] != head["versions"][n]:
            return f"It has {what} {facts['versions'][n]}, and the first coordinator {head['versions'][n]}."
    here, there = (each["python_version"].rpartition(".")[0] for each in (facts, head))
    return f"It has Python {here}, and the first coordinator {there}; Ray needs the same." if here != there else None


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"
