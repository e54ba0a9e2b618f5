"""The API key goes with each call, and not where somebody could read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trireme import AsyncClient, Client, _config
from trireme._authorization import authorization, is_loopback
from trireme.cli import main
from trireme.errors import ConfigurationError
from trireme.testing import FakeServer

KEY = "trireme_sk_0123456789ab_" + "A" * 49


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command was given counts for its process; here for its test."""
    monkeypatch.delenv("TRIREME_API_KEY", raising=False)
    monkeypatch.setattr(_config, "_used", _config._Used())


def test_it_is_sent_and_the_environments_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIREME_API_KEY", "of-the-environment")
    with FakeServer() as server:
        for key in (KEY, None, ""):
            with Client(server.target, api_key=key) as client:
                client.generate("a", max_tokens=1).result()
        sent = [call.metadata.get("authorization") for call in server.calls]
    assert sent == [f"Bearer {KEY}", "Bearer of-the-environment", None]


async def test_the_asyncio_client_sends_it_too() -> None:
    async with FakeServer() as server, AsyncClient(server.target, api_key=KEY) as client:
        await client.generate("a", max_tokens=1).result()
        assert server.calls[0].metadata["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("target", ["10.0.0.1:50051", "127.evil.example:1", "localhost.evil.example:1", "example.com"])
def test_it_does_not_go_to_another_machine_without_tls(target: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigurationError, match="TLS") as caught:
            kind(target, api_key=KEY)
        assert KEY not in caught.value.message
    Client(target, api_key=KEY, insecure_api_key=True).close()
    assert authorization(KEY, [target], encrypted=True).metadata


def test_one_address_of_another_machine_is_enough() -> None:
    with pytest.raises(ConfigurationError, match="TLS"):
        Client(["127.0.0.1:1", "10.0.0.1:1"], api_key=KEY)


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:50051", "[::1]:5", "127.8.8.8:1"])
def test_loopback_is_this_machine(target: str) -> None:
    assert is_loopback(target)


@pytest.mark.parametrize("key", ["a b", "a\nb", "\N{EURO SIGN}", "a\0", "x" * 10_000])
def test_what_is_no_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client("localhost:1", api_key=key)
    assert key not in caught.value.message


def test_it_is_not_shown() -> None:
    assert KEY not in repr(authorization(KEY, ["localhost:1"], encrypted=False))


def test_the_command_line_reads_it_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    with FakeServer() as server:
        command = ["generate", "a", "--max-tokens", "1", "--target", server.target, "--api-key-file", str(file)]
        assert main(command) == 0
        assert server.calls[0].metadata["authorization"] == f"Bearer {KEY}"
    file.write_text("")
    assert main(command) == 1
    assert main(["status", "--target", "10.0.0.1", "--api-key-file", str(tmp_path / "none")]) == 1
    file.write_text(KEY)
    assert main(["status", "--target", "10.0.0.1", "--api-key-file", str(file)]) == 1
    assert "without TLS" in capsys.readouterr().err
