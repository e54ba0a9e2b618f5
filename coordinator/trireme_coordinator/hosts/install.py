"""What `up --install` puts on hosts: a requirement for pip, or a local wheel, with a local folder of wheels for hosts
without a way out. Knows which files travel; the agent makes the environment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trireme_coordinator.hosts import ssh
from trireme_coordinator.hosts.hosts_file import Host
from trireme_proto.errors import ConfigurationError

Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Installation:
    """One thing to install."""

    requirement: str
    """For pip, or the name of a wheel."""
    digest: str
    """SHA-256 of what decides the result: where it is the same, nothing is installed again."""
    wheels: dict[str, Path]
    """Local files by name."""
    digests: dict[str, str]
    offline: bool
    """From the wheels alone."""
    is_file: bool

    def step(self, host: Host) -> dict[str, Any]:
        """For the agent."""
        return {
            "install": self.requirement, "python": host.python, "digest": self.digest, "offline": self.offline,
            "is_file": self.is_file, "env": host.environment, "wheels": sorted(self.wheels),
        }  # fmt: skip

    async def copy(self, host: Host, facts: dict[str, Any], ask: Ask) -> None:
        """Sends the wheels that the host does not have."""
        missing = [path for name, path in self.wheels.items() if facts["wheels"].get(name) != self.digests[name]]
        if missing:
            await ask({"do": "apply", "steps": [{"folder": "wheels"}]})
            await ssh.send(host, f"{facts['root']}/wheels", missing)


def read_installation(what: str, wheelhouse: Path | None) -> Installation:
    """From the options of the command. ConfigurationError."""
    if wheelhouse is not None and not wheelhouse.is_dir():
        raise ConfigurationError("The wheelhouse is not a folder.")
    files = sorted(wheelhouse.glob("*.whl")) if wheelhouse is not None else []
    is_file = what.endswith(".whl")
    if is_file:
        if not Path(what).is_file():
            raise ConfigurationError("The wheel to install is not there.")
        files = [each for each in files if each.name != Path(what).name] + [Path(what)]
    elif what.startswith("-") or not what.isprintable():
        raise ConfigurationError("What to install is neither a wheel nor a requirement of pip.")
    digests = {path.name: _digest(path) for path in files}
    whole = hashlib.sha256("\n".join([what, *(f"{n} {d}" for n, d in sorted(digests.items()))]).encode()).hexdigest()
    name = Path(what).name if is_file else what
    return Installation(name, whole, {p.name: p for p in files}, digests, wheelhouse is not None, is_file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
