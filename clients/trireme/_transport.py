"""How a channel to the server is set up: its address and its options. Opens nothing itself."""

from __future__ import annotations

from trireme import _config
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_LOOPBACK = ("localhost:", "127.", "[::1]:")

# Pings find a dead peer in the middle of an answer within 40 s. The server has to allow them:
# grpc.http2.min_ping_interval_without_data_ms below KEEPALIVE_MS.
KEEPALIVE_MS = 30_000
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # a minute by default; gRPC 1.85 heeds it, and not the one above
    ("grpc.http2.max_pings_without_data", 0),  # a long prefill sends no data
    ("grpc.max_send_message_length", LIMITS.message_bytes),
    ("grpc.max_receive_message_length", LIMITS.message_bytes),
    ("grpc.enable_retries", 0),  # retries are decided in one place: _retry.py
)


def resolve(target: str | None) -> str:
    """HOST:PORT to call; the port may be left out. Raises ConfigurationError where it cannot be an address."""
    target = target or _config.default_target()
    if target.startswith(("http://", "https://")) or any(c.isspace() for c in target):
        raise ConfigurationError(f"The target must be HOST:PORT, such as {_config.DEFAULT_TARGET}, not {target!r}.")
    return target if ":" in target else f"{target}:{_config.DEFAULT_PORT}"


def options(target: str) -> list[tuple[str, int]]:
    """Channel options for a resolved target."""
    # A proxy meant for the web must not catch calls that stay on this machine.
    return [*_OPTIONS, ("grpc.enable_http_proxy", 0 if target.startswith(_LOOPBACK) else 1)]
