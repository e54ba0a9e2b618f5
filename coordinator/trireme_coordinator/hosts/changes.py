"""From what a host has to what it is to have, as steps for its agent, each change with its reason. Pure."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trireme_coordinator.hosts.desired import Process

Step = dict[str, Any]
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """Steps for one host, and a line for a person on each thing that they change."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restarts: bool = False
    """Whether something that runs is interrupted."""


def file_change(facts: Facts, wanted: Mapping[str, bytes]) -> Change:
    """Files that differ. No process is started anew for them: certificates, keys and the token are read again."""
    differing = {n: d for n, d in wanted.items() if facts["files"].get(n) != hashlib.sha256(d).hexdigest()}
    steps = [{"write": name, "data": base64.b64encode(data).decode()} for name, data in differing.items()]
    return Change(steps, [f"{'updates' if facts['files'].get(name) else 'writes'} {name}" for name in differing])


def process_change(facts: Facts, wanted: Process) -> Change:
    """Nothing where it runs as wanted; else its start, and before that the end of what there is of it."""
    found = facts["processes"].get(wanted.name, {})
    start = start_step(wanted)
    if not found:
        return Change([start], [f"starts {wanted.name}"])
    stop = {"stop": wanted.name, "seconds": wanted.grace}
    if not found.get("alive"):
        return Change([stop, start], [f"starts {wanted.name} again, which had ended"])
    reasons = differences(found.get("spec", {}), wanted.spec())
    if not reasons:
        return Change()
    return Change([stop, start], [f"starts {wanted.name} anew: {'; '.join(reasons)}"], restarts=True)


def start_step(wanted: Process) -> Step:
    """For the agent."""
    return {
        "start": wanted.name, "argv": list(wanted.argv), "env": wanted.env, "spec": wanted.spec(),
        "ready": wanted.ready, "seconds": wanted.seconds, "folders": list(wanted.folders),
    }  # fmt: skip


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, without values of the environment, which may be secrets."""
    found = []
    gone, come = _only(old.get("argv", []), new["argv"]), _only(new["argv"], old.get("argv", []))
    if gone or come or old.get("argv") != new["argv"]:
        found.append(f"{shlex.join(gone) or 'nothing'} becomes {shlex.join(come) or 'nothing'}")
    before, after = old.get("env", {}), new["env"]
    if names := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        found.append(f"environment: {', '.join(names)}")
    if old.get("versions") != new["versions"]:
        found.append(f"version {' '.join(old.get('versions', []))} becomes {' '.join(new['versions'])}")
    for name, identity in new["after"].items():
        if old.get("after", {}).get(name) != identity:
            found.append(f"{name} was started anew")
    return found


def command_line(step: Step) -> str:
    """A step as a person would type it; of environment and files the names alone."""
    match step:
        case {"write": name}:
            return f"write {name} (0600)"
        case {"secret": name}:
            return f"write {name} (0600, random, if it is not there)"
        case {"stop": name, "seconds": seconds}:
            return f"stop {name} (by its process id; SIGTERM, after {seconds} s SIGKILL)"
        case {"start": _, "argv": argv, "env": env}:
            return " ".join([*sorted(f"{name}=..." for name in env), shlex.join(argv)])
        case {"install": requirement, "python": python}:
            return f"{shlex.quote(python)} -m venv ... && pip install {shlex.quote(requirement)}"
    return str(step)


def _only(these: Sequence[str], those: Sequence[str]) -> list[str]:
    return [each for each in these if each not in those]
