"""How a channel to the server is set up: its address and its options. Opens nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from trireme import _config
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_LOOPBACK = ("localhost:", "127.", "[::1]:")

# Pings find a dead peer in the middle of an answer within 14 s. The server has to allow them:
# grpc.http2.min_ping_interval_without_data_ms below KEEPALIVE_MS.
KEEPALIVE_MS = 10_000
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),  # a minute by default; gRPC 1.85 heeds it, and not the one above
    ("grpc.http2.max_pings_without_data", 0),  # a long prefill sends no data
    ("grpc.max_send_message_length", LIMITS.message_bytes),
    ("grpc.max_receive_message_length", LIMITS.message_bytes),
    ("grpc.enable_retries", 0),  # retries are decided in one place: _retry.py
    # A server that was just restarted is tried again soon; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in spite of its name, how long one attempt may take
)
# A name may stand for several servers: each further attempt then goes to the next one of them.
_IN_TURN = '{"loadBalancingConfig": [{"round_robin": {}}]}'


def resolve(target: str | Sequence[str] | None) -> tuple[str, ...]:
    """HOST:PORT of each server to call, in this order; the port may be left out. A string may hold several, with commas
    between. Raises ConfigurationError where one cannot be an address.
    """
    given = target or _config.default_target()
    each = given.split(",") if isinstance(given, str) else given
    return tuple(map(_resolved, each))


def _resolved(target: str) -> str:
    if not target or target.startswith(("http://", "https://")) or any(c.isspace() for c in target):
        raise ConfigurationError(f"The target must be HOST:PORT, such as {_config.DEFAULT_TARGET}, not {target!r}.")
    return target if ":" in target else f"{target}:{_config.DEFAULT_PORT}"


def options(target: str) -> list[tuple[str, int | str]]:
    """Channel options for a resolved target."""
    # A proxy meant for the web must not catch calls that stay on this machine.
    own = target.startswith(_LOOPBACK)
    in_turn = [] if own else [("grpc.service_config", _IN_TURN)]
    return [*_OPTIONS, *in_turn, ("grpc.enable_http_proxy", 0 if own else 1)]
