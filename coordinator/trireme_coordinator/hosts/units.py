"""systemd units for the same processes that `trireme up` starts, hardened; and the files that they need.

For each host a tree that is copied to its root: units in etc/systemd/system, files in var/lib/NAME. Memory must stay
executable once written, because the kernels are compiled; all else that systemd can take away is taken away.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from trireme_coordinator.hosts import desired
from trireme_coordinator.hosts.desired import COORDINATOR, RAY, Cluster, Files, Process
from trireme_coordinator.hosts.hosts_file import Host, Hosts
from trireme_proto.errors import ConfigurationError

_HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
"""


def write_units(hosts: Hosts, local: Files, folder: Path, python: str, user: str) -> list[Path]:
    """Writes them; what was written. A token that lies in `folder` is kept. ConfigurationError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = _token(folder / "ray_token")
        written = []
        for host in hosts.hosts:
            for name, data in tree(hosts, host, local, token, python, user).items():
                path = folder / host.name / name
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                _write(path, data, 0o644 if path.suffix == ".service" else 0o600)
                written.append(path)
    except OSError as fault:
        raise ConfigurationError(f"The units cannot be written: {fault.strerror}.") from fault
    return written


def tree(hosts: Hosts, host: Host, local: Files, token: str, python: str, user: str) -> dict[str, bytes]:
    """Contents of a host's files by path below its root."""
    root = f"/var/lib/{hosts.name}"
    facts = {"root": root, "python": python, "versions": []}
    nodes = Cluster(token, "", len(hosts.workers))
    found = {f"{root}/{name}": data for name, data in desired.files(host, local, token).items()}
    processes = [desired.ray_node(hosts, host, facts, nodes)]
    if host.coordinates:
        processes.append(desired.coordinator(hosts, host, facts, nodes, local, ""))
    for process in processes:
        hidden = {name: process.env[name] for name in process.secret & process.env.keys()}
        if hidden:
            found[f"{root}/secrets/{process.name}.env"] = _environment_file(hidden)
        unit = _unit(hosts, host, process, user, bool(hidden))
        found[f"/etc/systemd/system/{hosts.name}-{process.name}.service"] = unit.encode()
    return {name.lstrip("/"): data for name, data in found.items()}


def _unit(hosts: Hosts, host: Host, process: Process, user: str, hidden: bool) -> str:
    """As systemd.exec(5) and systemd.service(5) have it."""
    ray = f"{hosts.name}-{RAY}.service"
    # Not BindsTo: where Ray crashes, systemd would stop the coordinator and start Ray alone again.
    beside = f"Requires={ray}\nAfter={ray}\n" if process.name == COORDINATOR else ""
    what = "coordinator" if process.name == COORDINATOR else "Ray node"
    environment = {"TRIREME_CACHE_DIR": f"/var/cache/{hosts.name}/kernels", **_shown(process)}
    lines = [f'Environment="{name}={_escaped(value)}"' for name, value in sorted(environment.items())]
    lines += [f"EnvironmentFile=/var/lib/{hosts.name}/secrets/{process.name}.env"] if hidden else []
    lines += [f"CPUAffinity={host.cpus}"] if host.cpus and process.name == RAY else []
    own = f"+/bin/chown -R {user}:{user} /var/lib/{hosts.name}"  # what was copied there since is root's
    return f"""\
# Written by `trireme units`; written anew when it is called again.
[Unit]
Description=Trireme: {what} of {hosts.name}
Wants=network-online.target
After=network-online.target
{beside}StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
Group={user}
ExecStartPre={own}
ExecStart={" ".join(map(_quoted, process.argv))}
ExecReload={own}
WorkingDirectory=/var/lib/{hosts.name}
StateDirectory={hosts.name} {hosts.name}/ray
StateDirectoryMode=0700
CacheDirectory={hosts.name}
CacheDirectoryMode=0700
{chr(10).join(lines)}
Restart=always
RestartSec=5
KillMode=mixed
TimeoutStopSec={process.grace}
LimitNOFILE=65536
LimitMEMLOCK=infinity
{_HARDENING}
[Install]
WantedBy=multi-user.target
"""


def _shown(process: Process) -> Mapping[str, str]:
    """The environment that may be read by everybody."""
    return {name: value for name, value in process.env.items() if name not in process.secret}


def _quoted(argument: str) -> str:
    """For ExecStart: percent and dollar signs are systemd's own."""
    text = argument.replace("%", "%%").replace("$", "$$")
    return text if shlex.quote(text) == text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _environment_file(values: Mapping[str, str]) -> bytes:
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items()}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items()).encode()


def _token(path: Path) -> str:
    if not path.exists():
        _write(path, secrets.token_hex(32).encode(), 0o600)
    return path.read_text(encoding="ascii").strip()


def _write(path: Path, data: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:  # noqa: PTH123
        file.write(data)
