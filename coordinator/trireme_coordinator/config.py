"""All settings of a coordinator, and the one place that reads its environment.

A setting comes from the command line, else from the environment (TRIREME_ and the field's name in capitals), else from
the default below. An unknown TRIREME_ variable is an error that names it, because a misspelt one must not be ignored in
silence.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from trireme_coordinator.auth.settings import KeysOptions, check_keys
from trireme_coordinator.tls_options import TlsOptions, check_tls
from trireme_coordinator.trace_settings import TraceSettings, check_traces
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS
from trireme_worker.logs import FORMATS, LEVELS

_PREFIX = "TRIREME_"
_NOT_OURS = frozenset({"TRIREME_TARGET", "TRIREME_DEBUG", "TRIREME_CACHE_DIR", "TRIREME_PACKS"}) | {
    *("TRIREME_CA", "TRIREME_CERT", "TRIREME_KEY", "TRIREME_API_KEY")
}
"""Of the client, the command line, the kernels, the packs that a node fetched."""
_SERVICE_LINK = re.compile(
    r"TRIREME_(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT(_\d+_[A-Z]+)?=\w+://.*"
    r"|PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR)=.*)"
)
"""NAME=value as Kubernetes puts them into every container where a service is named trireme, or trireme-something."""
_ADDRESS = re.compile(r"(?P<host>[^\s:\[\]]+|\[[0-9A-Za-z:.%_-]+\]):(?P<port>[0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LEAST_KV_TOKENS = 16
KV_DTYPES = ("float32", "float16", "int8")
"""As in trireme_kernels, which is not imported here because it loads the kernels."""
SPECULATION = ("auto", "off")
DURABILITY = ("best-effort", "required")
LAYOUTS = ("auto", "2bit", "1.6bit", "packed")


@dataclass(frozen=True, slots=True)
class ServeConfig(TlsOptions, KeysOptions, TraceSettings):
    """Settings of `trireme serve`."""

    pack: str = ""
    """Folder of the model pack, the same on every node, or a URL (http, https, s3) from which each node fetches its own
    layers. Empty: the bundled model."""
    stages: int = 1
    """Stages that the layers are cut into, each a worker process."""
    threads: int = 1
    """Kernel threads of each stage."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT of the public gRPC server; an IPv6 host in brackets; port 0 picks a free one."""
    redis_url: str = ""
    """redis://[user:password@]host:port/db of the session store. Empty: an embedded server that ends with us."""
    ray_address: str = ""
    """HOST:PORT of a Ray cluster. Empty: a local one that ends with us."""
    ray_nodes: int = 1
    """Nodes of the Ray cluster to wait for before stages are placed. A node without CPUs does not count."""
    name: str = "trireme"
    """Name of the deployment: two of them can share one Ray cluster. Coordinators of one name on the same
    Redis and Ray cluster stand in for each other: one drives the stages, the others wait for it to end."""
    prefill_chunk: int = 256
    """Most prompt tokens in one micro-batch. Tokens; at least 1."""
    kv_tokens: int = 0
    """Tokens whose keys and values each stage can hold, 16 or more. 0: eight full contexts, at least 16,384."""
    kv_dtype: str = "float32"
    """How keys and values are kept: "float32" as computed; "float16" in half the memory or "int8" in about a quarter,
    which may change a token."""
    layout: str = "auto"
    """Layout of the ternary weights in memory: "2bit", "1.6bit", "auto" (the faster one on a worker's CPU) or "packed"
    (as in the pack, mapped from its files). A stage lays its weights out anew when it starts, if need be."""
    kv_store_gb: int = 0
    """Gigabytes of Redis (10^9 bytes) for full KV pages, so that a session whose pages the stages gave up or lost can
    be restored instead of computed, where that is quicker. 0: none are kept there."""
    slots: int = 64
    """Sequences that can be computed at once."""
    queue: int = LIMITS.queue
    """Requests of one tenant that may wait for a slot."""
    speculation: str = "auto"
    """"auto": next tokens are guessed from the text so far and verified together, where that pays; answers are the same
    as with "off"."""
    session_ttl: int = 24 * 3600
    """Seconds without use after which a session is forgotten, unless it was made with another time."""
    drain_seconds: int = 30
    """Seconds that running answers have to end when the coordinator is stopped and no other one takes them over."""
    durability: str = "best-effort"
    """While the session store is away: "best-effort" answers new conversations all the same and stores them when it is
    back; "required" refuses them. Both refuse what needs the store: to continue a session, or to make one by itself."""
    metrics_listen: str = ""
    """HOST:PORT of the HTTP server with /metrics, /healthz and /readyz. Empty: there is none."""
    metrics_hosts: str = ""
    """Names, with commas between, by which that server may be asked beside addresses and this machine's own names."""
    log_format: str = "console"
    """Log lines on standard error, of the coordinator and of its workers: "console", for people, or "json"."""
    log_level: str = "warning"
    """Least of what is logged: "debug", "info" (each request's end, too), "warning" or "error"."""
    data_dir: str = ""
    """Folder in which the embedded session store keeps its data. Empty: it forgets everything when it ends."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("stages", 1, 1024),
            ("threads", 1, 1024),
            ("ray_nodes", 1, 1024),
            ("prefill_chunk", 1, LIMITS.frame_tokens // 2),
            ("kv_tokens", 0, 1 << 31),
            ("kv_store_gb", 0, LIMITS.page_store_gigabytes),
            ("slots", 1, LIMITS.frame_rows),
            ("queue", 1, LIMITS.concurrent_calls),
            ("session_ttl", 1, LIMITS.session_ttl_seconds),
            ("drain_seconds", 0, 24 * 3600),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(
                    f"{name.replace('_', '-')} is {getattr(self, name)}; it must be {low} to {high}."
                )
        if 0 < self.kv_tokens < _LEAST_KV_TOKENS:
            raise ConfigurationError(f"kv-tokens is {self.kv_tokens}; it must be 0 or at least {_LEAST_KV_TOKENS}.")
        if self.kv_store_gb and self.ray_address and not self.redis_url:
            raise ConfigurationError("kv-store-gb needs redis-url here: an embedded Redis serves only its own machine.")
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"name is '{self.name}'; it must be 1 to 64 letters, digits and . _ or -.")
        _check_choice("kv-dtype", self.kv_dtype, KV_DTYPES)
        if self.speculation not in SPECULATION:
            raise ConfigurationError(f"speculation is '{self.speculation}'; it must be {' or '.join(SPECULATION)}.")
        if self.durability not in DURABILITY:
            raise ConfigurationError(f"durability is '{self.durability}'; it must be {' or '.join(DURABILITY)}.")
        _check_choice("layout", self.layout, LAYOUTS)
        split_address(self.listen)
        check_tls(self)
        check_keys(self)
        check_traces(self)
        split_address(self.metrics_listen or self.listen)
        _check_choice("log-format", self.log_format, FORMATS)
        _check_choice("log-level", self.log_level, LEVELS)


def _check_choice(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is '{value}'; it must be one of {', '.join(allowed)}.")


def from_environment(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> ServeConfig:
    """The settings: `given` (None: not given) before the environment before the defaults. ConfigurationError for a
    wrong one.
    """
    environment = os.environ if environment is None else environment
    fields = {each.name: type(each.default) for each in dataclasses.fields(ServeConfig)}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _NOT_OURS or _SERVICE_LINK.fullmatch(f"{variable}={text}"):
            continue
        name = variable.removeprefix(_PREFIX).lower()
        if name not in fields:
            raise ConfigurationError(f"The environment variable {variable} is not known.")
        values[name] = _parse(variable, text, fields[name])
    return ServeConfig(**(values | {name: value for name, value in given.items() if value is not None}))


def check_frames(config: ServeConfig, hidden_size: int) -> None:
    """ConfigurationError where the largest micro-batch would not fit a frame between two stages."""
    tokens, fit = config.prefill_chunk + config.slots, LIMITS.frame_bytes // (2 * 4 * hidden_size)
    if tokens > fit:  # half of a frame is for float32 activations, which is far more than the rest of it needs
        raise ConfigurationError(
            f"prefill-chunk and slots are {tokens} together; with this model they can be at most {fit}."
        )


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of HOST:PORT or [HOST]:PORT."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > 65535:
        raise ConfigurationError(f"'{address}' is not HOST:PORT.")
    return found["host"], int(found["port"])


def _parse(variable: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    if kind is bool:
        return _flag(variable, text)
    try:
        return kind(text)
    except ValueError:
        if kind is float:
            raise ConfigurationError(f"The environment variable {variable} is '{text[:40]}', not a number.") from None
        raise ConfigurationError(f"The environment variable {variable} is '{text[:40]}', not a whole number.") from None


def _flag(variable: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigurationError(f"The environment variable {variable} is '{text[:40]}', neither true nor false.")
    return text.lower() == "true"
