"""Settings: where they come from, which win, and what is refused in one sentence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trireme_coordinator.config import ServeConfig, check_frames, from_environment, split_address
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

RANGES = {
    "stages": (1, 1024),
    "threads": (1, 1024),
    "ray_nodes": (1, 1024),
    "prefill_chunk": (1, 4096),
    "kv_tokens": (16, 1 << 31),
    "kv_store_gb": (0, LIMITS.page_store_gigabytes),
    "slots": (1, LIMITS.frame_rows),
    "queue": (1, LIMITS.concurrent_calls),
    "trace_slow_ms": (0, 24 * 3600 * 1000),
    "trace_buffer_mb": (0, 4096),
    "session_ttl": (1, LIMITS.session_ttl_seconds),
    "drain_seconds": (0, 24 * 3600),
    "jwt_leeway": (0, 300),
    "quota_requests": (0, 10**12),
    "quota_tokens": (0, 10**12),
    "quota_streams": (0, 10**12),
}


def test_every_number_has_a_range_here() -> None:
    assert {f.name for f in dataclasses.fields(ServeConfig) if type(f.default) is int} == set(RANGES)


def test_defaults_are_valid_and_nothing_else_is_read() -> None:
    assert from_environment({}, {}) == ServeConfig()
    assert from_environment({}, {"PATH": "/bin", "trireme_stages": "4", "MY_TRIREME_STAGES": "4"}) == ServeConfig()


def test_given_before_environment_before_default() -> None:
    environment = {"TRIREME_STAGES": "3", "TRIREME_THREADS": "2", "TRIREME_LISTEN": "0.0.0.0:1"}
    config = from_environment({"stages": 5, "threads": None, "name": "prod"}, environment)
    assert (config.stages, config.threads, config.listen, config.name, config.slots) == (5, 2, "0.0.0.0:1", "prod", 64)


def test_the_process_environment_is_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIREME_SLOTS", "7")
    assert from_environment({}).slots == 7


def test_settings_of_traces_come_from_everywhere() -> None:
    config = from_environment({"trace_buffer_mb": 3}, {"TRIREME_TRACE_SHARE": "0.25", "TRIREME_TRACE_BUFFER_MB": "9"})
    assert (config.trace_share, config.trace_slow_ms, config.trace_buffer_mb) == (0.25, 2000, 3)
    with pytest.raises(ConfigurationError, match=r"^trace-share is 2\.0; it must be 0 to 1\.$"):
        from_environment({}, {"TRIREME_TRACE_SHARE": "2"})
    with pytest.raises(
        ConfigurationError, match=r"^The environment variable TRIREME_TRACE_SHARE is 'x', not a number\.$"
    ):
        from_environment({}, {"TRIREME_TRACE_SHARE": "x"})
    with pytest.raises(ConfigurationError, match="trace-slow-ms is -1"):
        ServeConfig(trace_slow_ms=-1)


@pytest.mark.parametrize("field", dataclasses.fields(ServeConfig), ids=lambda f: f.name)
def test_every_field_can_come_from_the_environment(field: dataclasses.Field[Any]) -> None:
    texts = {"listen": "h:1", "kv_dtype": "float16", "layout": "packed", "speculation": "off", "name": "x"}
    texts |= {"durability": "required", "metrics_listen": "h:2", "log_format": "json", "log_level": "info"}
    texts |= {"trace_share": "0.5", "reflection": "off", "jwt_algorithms": "RS256", "jwt_issuer": "https://y"}
    text = texts.get(field.name, "true" if isinstance(field.default, bool) else "17")
    pair = {"TRIREME_TLS_CERT": "17", "TRIREME_TLS_KEY": "17"} if field.name.startswith("tls_") else {}
    if field.name.startswith("jwt_"):
        pair = {"TRIREME_JWT_ISSUER": "https://x", "TRIREME_JWT_AUDIENCE": "x"}
    config = from_environment({}, pair | {f"TRIREME_{field.name.upper()}": text})
    assert getattr(config, field.name) == type(field.default)(text)


@pytest.mark.parametrize("variable", ["TRIREME_STAGE", "TRIREME_", "TRIREME_stages_", "TRIREME_PORT", "TRIREME_REDIS"])
def test_an_unknown_variable_is_named(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^The environment variable {variable} is not known.$"):
        from_environment({}, {variable: "8080"})


@pytest.mark.parametrize(
    "variable", ["TRIREME_TARGET", "TRIREME_DEBUG", "TRIREME_CACHE_DIR", "TRIREME_CA", "TRIREME_CERT", "TRIREME_KEY"]
)
def test_what_belongs_to_others_is_left_alone(variable: str) -> None:
    assert from_environment({}, {variable: "anything"}) == ServeConfig()


@pytest.mark.parametrize("text", ["yes", "1", "", "TRUE!"])
def test_a_flag_is_true_or_false(text: str) -> None:
    with pytest.raises(ConfigurationError, match="neither true nor false"):
        from_environment({}, {"TRIREME_INSECURE_NO_AUTH": text})


@pytest.mark.parametrize("given", [{"tls_cert": "a"}, {"tls_key": "a"}, {"tls_client_ca": "a"}])
def test_settings_of_tls_that_lack_others(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="tls-cert and tls-key"):
        ServeConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["TRIREME", "TRIREME_PROD", "TRIREME_STAGE_0"])
def test_what_kubernetes_sets_for_its_services_is_left_alone(prefix: str) -> None:
    links = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "50051",
        "SERVICE_PORT_GRPC": "50051",
        "PORT": "tcp://10.0.0.1:50051",
        "PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "PORT_50051_TCP_PROTO": "tcp",
        "PORT_50051_TCP_PORT": "50051",
        "PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    assert from_environment({}, {f"{prefix}_{name}": value for name, value in links.items()}) == ServeConfig()


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e3", "0x10", "--1", "9" * 5000, "1 2"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TRIREME_STAGES") as raised:
        from_environment({}, {"TRIREME_STAGES": text})
    assert "not a whole number" in raised.value.message
    assert len(raised.value.message) < 200


@pytest.mark.parametrize(("name", "low", "high"), [(name, *ends) for name, ends in RANGES.items()])
def test_ranges(name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(ServeConfig(**{name: value}), name) == value
        assert getattr(from_environment({}, {f"TRIREME_{name.upper()}": str(value)}), name) == value
    for value in (low - 1, high + 1, -1, -(1 << 70), 1 << 70):
        with pytest.raises(ConfigurationError, match=f"^{name.replace('_', '-')} is {value}; it must be"):
            ServeConfig(**{name: value})


def test_speculation_is_auto_or_off() -> None:
    with pytest.raises(ConfigurationError, match=r"^speculation is 'on'; it must be auto or off\.$"):
        ServeConfig(speculation="on")


def test_no_kv_tokens_means_that_the_model_decides() -> None:
    assert ServeConfig(kv_tokens=0).kv_tokens == 0


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "ä", "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name is"):
        ServeConfig(name=name)


@pytest.mark.parametrize("layout", ["", "3bit", "2bit ", "AUTO"])
def test_layouts_that_are_refused(layout: str) -> None:
    with pytest.raises(ConfigurationError, match=r"it must be one of auto, 2bit, 1.6bit, packed\.$"):
        ServeConfig(layout=layout)


@pytest.mark.parametrize("name", ["t", "a.b-c_9", "x" * 64])
def test_names(name: str) -> None:
    assert ServeConfig(name=name).name == name


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:0", ("localhost", 0)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("[::1]:50051", ("[::1]", 50051)),
        ("[fe80::1%eth0]:1", ("[fe80::1%eth0]", 1)),
        ("my-host.example:080", ("my-host.example", 80)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


NO_ADDRESSES = [
    *("", ":", "host", "host:", ":1", "[::1]", "[]:1", "::1:50051", "http://host:1"),
    *("host:65536", "host:-1", "host:1x", "host:123456", "host:१", "a b:1", "host:1\n", " host:1"),
]


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
        split_address(address)
    with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
        ServeConfig(listen=address)


def test_the_largest_micro_batch_fits_a_frame() -> None:
    """70B: 32 KiB a token."""
    check_frames(ServeConfig(), 8192)
    check_frames(ServeConfig(prefill_chunk=4032, slots=64), 8192)
    with pytest.raises(ConfigurationError, match=r"^prefill-chunk and slots are 4160 together; .* at most 4096\.$"):
        check_frames(ServeConfig(prefill_chunk=4096, slots=64), 8192)


def test_pages_of_other_machines_need_a_redis_of_their_own() -> None:
    with pytest.raises(ConfigurationError, match="kv-store-gb needs redis-url here"):
        ServeConfig(kv_store_gb=1, ray_address="ray:6379")
    ServeConfig(kv_store_gb=1, ray_address="ray:6379", redis_url="redis://:p@h:1/0")
