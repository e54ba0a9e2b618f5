"""Takes one request: look, apply or purge."""

from __future__ import annotations

import base64
import os
import platform
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trireme_coordinator.hosts.agent.files import digest, locked, read, secret, wheels, write
from trireme_coordinator.hosts.agent.installing import install, installed, resolved, versions
from trireme_coordinator.hosts.agent.processes import described, record_alive, stop
from trireme_coordinator.hosts.agent.starting import start
from trireme_coordinator.hosts.agent.words import Json, Refused, say


def main(request: Json) -> None:
    """Does what `request` says and prints the result. The exit code is 0 whatever comes of it."""
    work: dict[str, Callable[[Path, Json], Json]] = {"look": look, "apply": apply, "purge": purge}
    root = Path(request["root"]).expanduser().absolute()
    try:
        say({"result": work[request["do"]](root, request)})
    except Refused as error:
        say({"refused": str(error)})
    except OSError as error:
        say({"refused": f"{error.strerror or 'Input/output error'}: {error.filename or root}."})


def look(root: Path, request: Json) -> Json:
    """Facts about the host, and what of ours runs on it. Changes nothing."""
    python = installed(root) or resolved(request["python"])
    home = next(each for each in (root, *root.parents) if each.exists())
    return {
        "root": str(root),
        "python": python,
        "installed": installed(root, "digest"),
        "python_version": platform.python_version(),
        "versions": versions(python, request["env"]),
        "free_bytes": shutil.disk_usage(home).free,
        "shared_bytes": shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,  # noqa: S108
        "pack": _has_pack(request["pack"]),
        "writable": os.access(home, os.W_OK),
        "systemd": Path("/run/systemd/system").is_dir(),
        "busy": [port for port in request["ports"] if _taken(request["address"], port)],
        "files": {name: digest(root / name) for name in request["files"]},
        "wheels": wheels(root) if request.get("wheels") else {},
        "processes": {path.stem: described(read(path)) for path in sorted((root / "run").glob("*.json"))},
    }


def apply(root: Path, request: Json) -> Json:
    """Takes the steps in turn. Where one fails, what the ones before it started is stopped again."""
    begun: list[str] = []
    with locked(root):
        try:
            results = [_step(root, step, begun) for step in request["steps"]]
        except (Refused, OSError):
            for name in reversed(begun):
                stop(root, name, 10, tell=False)  # perhaps nobody listens any more
            raise
    return {"started": begun, "results": results}


def purge(root: Path, _: Json) -> Json:
    """Removes the folder, once nothing of ours runs."""
    if any(record_alive(read(path)) for path in (root / "run").glob("*.json")):
        raise Refused("Processes still run; take them down first.")
    if (root / "run").is_dir():
        shutil.rmtree(root)
    return {}


def _step(root: Path, step: Json, begun: list[str]) -> Any:
    match step:
        case {"write": name, "data": data}:
            return write(root / name, base64.b64decode(data))
        case {"folder": name}:
            return (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        case {"secret": name}:
            return secret(root / name)
        case {"install": requirement}:
            return install(root, requirement, step)
        case {"stop": name, "seconds": seconds}:
            return stop(root, name, seconds)
        case {"start": name}:
            begun.append(name)
            return start(root, name, step)
    raise Refused("The step is not known: this host's agent and its caller differ.")


def _has_pack(path: str | None) -> bool:
    return path is None or (Path(path).expanduser() / "trireme.json").is_file()


def _taken(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except PermissionError:
            raise Refused(f"Port {port} is for root alone; choose one above 1023.") from None
        except OSError as error:
            if error.errno == 99:  # EADDRNOTAVAIL
                raise Refused(f"The address {address} is not one of this host's own.") from None
            return True
    return False
