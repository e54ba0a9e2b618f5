"""What a host is to have: files and processes. Pure: hosts.yaml and the facts of a host in, data out.

The Ray node of a host takes stages where the host is a worker; elsewhere it has no CPUs and is there for the
coordinator beside it. Ray's head is on the first coordinator's host. Sessions are in the Redis that is given, else in
the coordinator's embedded one, whose data lie in the deployment's folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from trireme_coordinator.hosts.hosts_file import Host, Hosts
from trireme_coordinator.hosts.serve_options import arguments

RAY, COORDINATOR = "ray", "coordinator"
TOKEN = "secrets/ray_token"  # noqa: S105  the name of a file
OBJECT_STORE_BYTES = 80 << 20
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_memory_monitor_refresh_ms": "0",
}
"""As the chart has it (helm/trireme/templates/configmap-ray.yaml)."""
_LAST_MINUTE = 60
_START_SECONDS = {RAY: 300, COORDINATOR: 3600}
"""A coordinator waits for stages that may have to fetch tens of gigabytes first; it says what it waits for."""
_TLS_NAMES = {"cert": "tls.crt", "key": "tls.key", "client-ca": "client-ca.crt", "redis-ca": "redis-ca.crt"}
STAGE_FILES = ("ca.crt", "tls.crt", "tls.key")


@dataclass(frozen=True, slots=True)
class Files:
    """Contents of the local files that hosts.yaml names, read once."""

    tls: dict[str, bytes] = field(default_factory=dict)
    stage_tls: dict[str, bytes] = field(default_factory=dict)
    keys: bytes | None = None
    redis_url: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a host."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    secret: frozenset[str]
    """Names in `env` whose values must not be shown or kept."""
    loose: frozenset[str]
    """Names in `env` that matter while it starts only: another value is no reason to start it anew."""
    after: dict[str, str]
    """Identities of the processes that it cannot outlive, by name."""
    versions: tuple[str, ...]
    ready: str
    """What its log says when it is ready."""
    seconds: int
    """To become ready."""
    grace: int
    """Seconds to end by itself."""
    folders: tuple[str, ...] = ()
    """That are empty when it starts; what was in them is kept once."""

    def spec(self) -> dict[str, Any]:
        """What would make it another process, without the secrets themselves."""
        env = {
            name: f"sha256:{hashlib.sha256(value.encode()).hexdigest()}" if name in self.secret else value
            for name, value in sorted(self.env.items())
            if name not in self.loose
        }
        return {"argv": list(self.argv), "env": env, "after": self.after, "versions": list(self.versions)}


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the hosts of a cluster must know of each other."""

    token: str = ""
    head: str = ""
    """Identity of the head's Ray node, this time."""
    nodes: int = 1
    """Nodes with CPUs to wait for."""


def files(host: Host, local: Files, token: str) -> dict[str, bytes]:
    """Files of a host by path in the deployment's folder; all of them 0600."""
    found = {TOKEN: token.encode()} if token else {}
    found |= {f"stage-tls/{name}": data for name, data in local.stage_tls.items()}
    if host.coordinates:
        found |= {f"tls/{_TLS_NAMES[key]}": data for key, data in local.tls.items()}
        if local.keys is not None:
            found["keys.json"] = local.keys
    return found


def ray_node(hosts: Hosts, host: Host, facts: dict[str, Any], cluster: Cluster) -> Process:
    """The Ray node of a host."""
    root, ports = facts["root"], hosts.ports
    head = host == hosts.coordinators[0]
    where = ["--head", f"--port={ports.ray}", "--include-dashboard=false"] if head else [f"--address={_ray(hosts)}"]
    argv = [
        facts["python"], "-m", "ray.scripts.scripts", "start", "--block", *where,
        f"--node-ip-address={host.address}", f"--node-name={host.name}", f"--num-cpus={int(host.works)}",
        f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={root}/ray", "--disable-usage-stats",
        "--log-color=false",
    ]  # fmt: skip
    if ports.node_manager:
        argv.append(f"--node-manager-port={ports.node_manager}")
    if ports.object_manager:
        argv.append(f"--object-manager-port={ports.object_manager}")
    if ports.workers[1]:
        argv += [f"--min-worker-port={ports.workers[0]}", f"--max-worker-port={ports.workers[1]}"]
    if host.ram_gb is not None:
        argv.append(f"--memory={int(host.ram_gb * 1e9)}")
    return Process(
        RAY,
        tuple(argv),
        host.environment | RAY_ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": f"{root}/{TOKEN}"},
        secret=frozenset(),
        loose=frozenset(),
        after={} if head else {f"{RAY} on {hosts.coordinators[0].name}": cluster.head},
        versions=tuple(facts["versions"]),
        ready="Ray runtime started",
        seconds=_START_SECONDS[RAY],
        grace=15,
        folders=(f"{root}/ray",),
    )


def coordinator(hosts: Hosts, host: Host, facts: dict[str, Any], cluster: Cluster, local: Files, node: str) -> Process:
    """The coordinator of a host; `node`: identity of the Ray node beside it."""
    env = host.environment | RAY_ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": f"{facts['root']}/{TOKEN}"}
    env["TRIREME_RAY_NODES"] = str(cluster.nodes)
    if local.redis_url:
        env["TRIREME_REDIS_URL"] = local.redis_url
    return Process(
        COORDINATOR,
        (facts["python"], "-m", "trireme", "serve", *_serve_arguments(hosts, host, facts["root"], local)),
        env,
        secret=frozenset({"TRIREME_REDIS_URL"}),
        loose=frozenset({"TRIREME_RAY_NODES"}),
        after={f"{RAY} on {host.name}": node},
        versions=tuple(facts["versions"]),
        ready="Trireme is ready",
        seconds=_START_SECONDS[COORDINATOR],
        grace=int(hosts.serve.get("drain_seconds") or 30) + _LAST_MINUTE,
    )


def listens(hosts: Hosts, host: Host) -> str:
    """HOST:PORT of a coordinator."""
    return f"{_bracketed(host.address)}:{hosts.ports.public}"


def _serve_arguments(hosts: Hosts, host: Host, root: str, local: Files) -> list[str]:
    given = hosts.serve | {"listen": listens(hosts, host), "ray_address": _ray(hosts), "name": hosts.name}
    if not local.redis_url:
        given["data_dir"] = f"{root}/sessions"
    for key in local.tls:
        given["redis_ca" if key == "redis-ca" else f"tls_{key}"] = f"{root}/tls/{_TLS_NAMES[key]}"
    if local.stage_tls:
        given["stage_tls_dir"] = f"{root}/stage-tls"
    if local.keys is not None:
        given["keys"] = f"{root}/keys.json"
    return [*([hosts.model] if hosts.model else []), *arguments(given)]


def _ray(hosts: Hosts) -> str:
    return f"{_bracketed(hosts.coordinators[0].address)}:{hosts.ports.ray}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
