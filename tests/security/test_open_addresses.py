"""Nothing starts on an address that other machines reach without saying who may call and without TLS, unless somebody
said so in so many words.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.security.certificates import made

from trireme_coordinator import exposure
from trireme_coordinator.config import ServeConfig, from_environment
from trireme_coordinator.ray_access import check_token
from trireme_coordinator.security import secured
from trireme_proto.errors import ConfigurationError

LOOPBACK = ["127.0.0.1:0", "127.8.9.1:50051", "localhost:1", "[::1]:50051"]
OPEN = [
    "0.0.0.0:50051",
    "[::]:50051",
    "10.0.0.1:1",
    "192.168.1.7:50051",
    "node-1:50051",
    "[fe80::1]:1",
    "localhost.evil:1",
]
WAYS = ["mtls", "keys", "jwt"]


@pytest.mark.parametrize("listen", LOOPBACK)
def test_loopback_asks_for_nothing(listen: str) -> None:
    exposure.check(listen)
    secured(ServeConfig(listen=listen))


@pytest.mark.parametrize("listen", OPEN)
def test_nobody_listens_to_strangers(listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"anybody there could use the model.*--keys.*--insecure-no-auth"):
        secured(ServeConfig(listen=listen))
    with pytest.raises(ConfigurationError, match="anybody there"):
        exposure.check(listen, tls=True)  # TLS alone says nothing of who calls


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_knowing_the_caller_needs_tls_besides(way: str) -> None:
    with pytest.raises(ConfigurationError, match=r"read along.*--tls-cert.*--insecure-no-tls"):
        exposure.check("0.0.0.0:1", **{way: True})
    exposure.check("0.0.0.0:1", tls=True, **{way: True})
    exposure.check("0.0.0.0:1", insecure_no_tls=True, **{way: True})


def test_in_so_many_words() -> None:
    with pytest.raises(ConfigurationError, match="read along"):
        exposure.check("0.0.0.0:1", insecure_no_auth=True)
    with pytest.raises(ConfigurationError, match="anybody there"):
        exposure.check("0.0.0.0:1", insecure_no_tls=True)
    exposure.check("0.0.0.0:1", insecure_no_auth=True, insecure_no_tls=True)


def test_the_settings_are_what_is_checked(tmp_path: Path) -> None:
    folder = made(tmp_path)
    files = {"tls_cert": str(folder / "server.crt"), "tls_key": str(folder / "server.key")}
    with pytest.raises(ConfigurationError, match="anybody there"):
        secured(ServeConfig(listen="0.0.0.0:1", **files))
    mutual = ServeConfig(listen="0.0.0.0:1", tls_client_ca=str(folder / "ca.crt"), **files)
    assert secured(mutual)[1] is not None
    environment = {"TRIREME_LISTEN": "0.0.0.0:1", "TRIREME_INSECURE_NO_AUTH": "true", "TRIREME_INSECURE_NO_TLS": "TRUE"}
    assert secured(from_environment({}, environment))[1] is None


@pytest.mark.parametrize("setting", ["tls_cert", "stage_tls_dir", "redis_ca"])
def test_files_that_are_no_use_stop_the_start(setting: str, tmp_path: Path) -> None:
    given = {setting: str(tmp_path / "none"), "redis_url": "rediss://:secret@10.0.0.9:6379"}
    if setting == "tls_cert":
        given["tls_key"] = str(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="cannot be read") as told:
        secured(ServeConfig(**given))  # type: ignore[arg-type]
    assert str(tmp_path) not in told.value.message


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RAY_AUTH_MODE": "token"},
        {"RAY_AUTH_TOKEN": "secret"},
        {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "secret"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "  "},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/dev/null"},
    ],
)
def test_an_open_ray_is_not_joined(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="unless it wants a token"):
        check_token("10.0.0.9:6379", environment)
    check_token("127.0.0.1:6379", environment)


def test_a_ray_with_a_token_is_joined(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    check_token("10.0.0.9:6379", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret"})
    check_token("10.0.0.9:6379", {"RAY_AUTH_MODE": "TOKEN", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
