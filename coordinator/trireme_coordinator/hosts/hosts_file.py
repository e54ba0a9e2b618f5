"""hosts.yaml: the machines of a deployment, and what they are to run. Read strictly; every mistake names its place.

    name: trireme                     # of the deployment; this and all that has a default may be left out
    model: /srv/packs/70b             # folder of the pack, the same on all hosts, or a URL; default: the bundled model
    ssh: {user: trireme, port: 22, key: ~/.ssh/id_ed25519, options: [ProxyJump=bastion]}
    python: ~/trireme/bin/python      # with Trireme in it; default: python3
    folder: ~/.trireme/trireme        # on the hosts, for all that `trireme up` writes
    hosts:
      - {host: 10.0.0.1, roles: [coordinator]}
      - {host: 10.0.0.2, ram_gb: 60, cpus: 0-15}      # roles: [worker] by default
      - {name: big, host: big.example.org, address: 10.0.0.3, user: me, environment: {MALLOC_ARENA_MAX: "2"}}
    serve: {stages: 2, threads: 16, kv-dtype: int8}   # options of `trireme serve`
    ports: {public: 50051, ray: 6379, node-manager: 6380, object-manager: 6381, workers: 20000-20999}
    redis: {url-file: redis-url}      # local file with the URL; needed from two coordinators on
    tls: {cert: tls.crt, key: tls.key, client-ca: ca.crt, stages: stage-tls, redis-ca: redis-ca.crt}
    keys: keys.json                   # local files, copied to the hosts that need them
    environment: {OTEL_EXPORTER_OTLP_ENDPOINT: "http://10.0.0.9:4317"}

Paths of local files are relative to hosts.yaml.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trireme_coordinator.hosts.reading import Reader, load
from trireme_coordinator.hosts.serve_options import checked
from trireme_proto.errors import ConfigurationError

COORDINATOR, WORKER = "coordinator", "worker"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\]-]{0,252}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")
_CPUS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MOST_HOSTS = 512
TLS_FILES = ("cert", "key", "client-ca", "redis-ca")


@dataclass(frozen=True, slots=True)
class Ssh:
    """How a host is reached."""

    user: str = ""
    port: int = 0
    """0: as ssh's own configuration says."""
    key: str = ""
    options: tuple[str, ...] = ()
    """NAME=VALUE of ssh_config."""


@dataclass(frozen=True, slots=True)
class Host:
    """One machine."""

    name: str
    host: str
    """What ssh connects to."""
    address: str
    """IP address at which the other hosts reach it."""
    roles: frozenset[str]
    ssh: Ssh
    python: str
    ram_gb: float | None = None
    """Memory that stages may use, GB (10^9 bytes). None: what Ray finds."""
    cpus: str = ""
    """CPUs of its units under systemd, such as 0-15."""
    environment: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def coordinates(self) -> bool:
        """Whether a coordinator runs there."""
        return COORDINATOR in self.roles

    @property
    def works(self) -> bool:
        """Whether it takes stages."""
        return WORKER in self.roles


@dataclass(frozen=True, slots=True)
class Ports:
    """0: any free one."""

    public: int = 50051
    ray: int = 6379
    node_manager: int = 6380
    object_manager: int = 0
    workers: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Hosts:
    """All of hosts.yaml."""

    name: str
    model: str
    folder: str
    hosts: tuple[Host, ...]
    ports: Ports
    serve: dict[str, Any]
    """Options of `trireme serve` by parameter name, as `kv_dtype`."""
    tls: dict[str, Path]
    stage_tls: Path | None
    keys: Path | None
    redis_url: Path | None

    @property
    def coordinators(self) -> tuple[Host, ...]:
        """The first of them has Ray's head."""
        return tuple(host for host in self.hosts if host.coordinates)

    @property
    def workers(self) -> tuple[Host, ...]:
        """Hosts that take stages."""
        return tuple(host for host in self.hosts if host.works)


def read_hosts(path: Path) -> Hosts:
    """The deployment in a file. ConfigurationError for every mistake."""
    top = Reader(load(path), "The hosts file")
    top.only(
        "name", "model", "ssh", "python", "folder", "hosts", "serve", "ports", "redis", "tls", "keys", "environment"
    )
    name = top.text("name", "trireme", _NAME)
    ssh, python = _ssh(top.part("ssh"), Ssh()), top.text("python", "python3")
    environment = _environment(top.part("environment"))
    hosts = tuple(_host(each, ssh, python, environment) for each in top.parts("hosts", _MOST_HOSTS))
    tls = top.part("tls").only(*TLS_FILES, "stages")
    found = Hosts(
        name=name,
        model=top.text("model", ""),
        folder=top.text("folder", f"~/.trireme/{name}"),
        hosts=hosts,
        ports=_ports(top.part("ports")),
        serve=_serve(top.part("serve")),
        tls={key: tls.file(key, path.parent) for key in TLS_FILES if key in tls},
        stage_tls=tls.folder("stages", path.parent),
        keys=top.file("keys", path.parent) if "keys" in top else None,
        redis_url=top.part("redis").only("url-file").file("url-file", path.parent) if "redis" in top else None,
    )
    _check(found)
    return found


def _check(found: Hosts) -> None:
    for what in ("name", "host"):
        names = [getattr(host, what) for host in found.hosts]
        if twice := [each for i, each in enumerate(names) if each in names[:i]]:
            raise ConfigurationError(f"The hosts file has two hosts with the {what} '{twice[0]}'.")
    addresses = [host.address for host in found.hosts]
    if twice := [each for i, each in enumerate(addresses) if each in addresses[:i]]:
        raise ConfigurationError(f"The hosts file has two hosts with the address '{twice[0]}'.")
    if not found.coordinators:
        raise ConfigurationError("No host has the role coordinator; one needs 'roles: [coordinator]'.")
    if not found.workers:
        raise ConfigurationError("No host has the role worker, so that there is no place for the model.")
    if len(found.coordinators) > 1 and found.redis_url is None:
        raise ConfigurationError("Several coordinators need one Redis: give its URL with 'redis: {url-file: FILE}'.")
    if found.serve.get("kv_store_gb") and found.redis_url is None:
        raise ConfigurationError("'serve: {kv-store-gb: ...}' needs a Redis: 'redis: {url-file: FILE}'.")
    if ("cert" in found.tls) != ("key" in found.tls):
        raise ConfigurationError("'tls' has one of cert and key; it takes both.")


def _host(part: Reader, ssh: Ssh, python: str, environment: dict[str, str]) -> Host:
    part.only(
        "name", "host", "address", "roles", "user", "port", "key", "options", "python", "ram_gb", "cpus", "environment"
    )
    host = part.text("host", None, _HOST)
    roles = part.texts("roles", ("worker",))
    if not roles or set(roles) - {COORDINATOR, WORKER}:
        raise ConfigurationError(f"{part.where}: roles are 'coordinator' and 'worker'.")
    address = part.text("address", host)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ConfigurationError(
            f"{part.where}: give its IP address, as the other hosts see it, with 'address'."
        ) from None
    if ipaddress.ip_address(address).is_unspecified or address == "127.0.0.1":
        raise ConfigurationError(f"{part.where}: the address {address} is none that Ray takes for a node of a cluster.")
    return Host(
        name=part.text("name", host, _NAME),
        host=host,
        address=address,
        roles=frozenset(roles),
        ssh=_ssh(part, ssh),
        python=part.text("python", python),
        ram_gb=part.number("ram_gb", 0.1, 1e6),
        cpus=part.text("cpus", "", _CPUS),
        environment=environment | _environment(part.part("environment")),
    )


def _ssh(part: Reader, default: Ssh) -> Ssh:
    if part.where.endswith("'ssh'"):
        part.only("user", "port", "key", "options")
    options = part.texts("options", default.options)
    if wrong := [each for each in options if not re.fullmatch(r"[A-Za-z]+=[^\n]+", each)]:
        raise ConfigurationError(f"{part.where}: the ssh option '{wrong[0][:40]}' is not NAME=VALUE.")
    return Ssh(
        part.text("user", default.user, _USER),
        part.whole("port", default.port, 1, 65535),
        part.text("key", default.key),
        options,
    )


def _ports(part: Reader) -> Ports:
    part.only("public", "ray", "node-manager", "object-manager", "workers")
    text = part.text("workers", "0-0")
    match = _RANGE.fullmatch(text)
    low, high = (int(match[1]), int(match[2])) if match else (1, 0)
    if not 0 <= low <= high <= 65535:
        raise ConfigurationError(f"{part.where}: workers is '{text[:40]}'; it must be a range such as 20000-20999.")
    return Ports(
        part.whole("public", 50051, 1, 65535),
        part.whole("ray", 6379, 1, 65535),
        part.whole("node-manager", 6380, 0, 65535),
        part.whole("object-manager", 0, 0, 65535),
        (low, high),
    )


def _environment(part: Reader) -> dict[str, str]:
    values = {key: part.text(key, None) for key in part.keys()}  # noqa: SIM118  a Reader is no dict
    for name in values:
        if not _VARIABLE.fullmatch(name):
            raise ConfigurationError(f"{part.where}: '{name[:40]}' is not the name of an environment variable.")
    return values


def _serve(part: Reader) -> dict[str, Any]:
    """By the names that `trireme serve` has for its parameters."""
    return checked({key.replace("-", "_"): part.raw(key) for key in part.keys()})  # noqa: SIM118
