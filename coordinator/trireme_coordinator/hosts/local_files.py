"""The local files that hosts.yaml names, read and looked at once, before any host is touched."""

from __future__ import annotations

from pathlib import Path

from trireme_coordinator.hosts.desired import STAGE_FILES, Files
from trireme_coordinator.hosts.hosts_file import Hosts
from trireme_coordinator.store.redis_url import checked_url
from trireme_proto.errors import ConfigurationError

_MOST_BYTES = 4 << 20


def read_files(hosts: Hosts) -> Files:
    """Their contents. ConfigurationError."""
    return Files(
        tls={key: _read(path) for key, path in hosts.tls.items()},
        stage_tls={name: _read(hosts.stage_tls / name) for name in STAGE_FILES} if hosts.stage_tls else {},
        keys=_read(hosts.keys) if hosts.keys else None,
        redis_url=_url(hosts.redis_url) if hosts.redis_url else "",
    )


def _url(path: Path) -> str:
    return checked_url(_read(path).decode(errors="replace").strip())


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigurationError(f"The file '{path.name}' cannot be read: {fault.strerror}.") from fault
    if not data or len(data) > _MOST_BYTES:
        raise ConfigurationError(f"The file '{path.name}' is empty or too large.")
    return data
