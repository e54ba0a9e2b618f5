"""Redis over TLS: `rediss://` with `--redis-ca`; a server that cannot show a certificate of it is not spoken to."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.coordinator.store.backends import MODEL
from tests.security.certificates import exchange, made
from tests.security.redis_servers import acl_server
from tests.security.relay_tls import tls_relay

from trireme_coordinator.store import RedisRequestStore
from trireme_coordinator.store.lease import RedisLease
from trireme_coordinator.store.redis_url import checked_url
from trireme_coordinator.tls_options import redis_url_with_ca
from trireme_proto.errors import ConfigurationError, StartupError
from trireme_worker.page_redis import shared_secret


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Of a server behind TLS, without a CA."""
    with acl_server() as server, tls_relay(server.socket, folder) as port:
        yield server.tls_url(port)


async def stores(url: str) -> bool:
    """Whether a session, a lease and the secret of the page store can be kept there."""
    # long limits: a handshake between threads of a busy machine may take its time
    store, lease = (
        RedisRequestStore(url, MODEL, timeout_seconds=20.0),
        RedisLease(url, "tls", "me", timeout_seconds=20.0),
    )
    try:
        if not await store.ping():
            with pytest.raises(StartupError):
                shared_secret(url)
            return False
        session = await store.create()
        assert (await store.get(session.session_id)) == session
        await lease.release(await lease.take())
        return len(shared_secret(url)) == 32
    finally:
        await store.close()
        await lease.close()


async def test_the_ca_that_was_given_is_believed_and_no_other(url: str, folder: Path, tmp_path: Path) -> None:
    assert await stores(redis_url_with_ca(url, str(folder / "ca.crt")))
    assert not await stores(redis_url_with_ca(url, str(made(tmp_path) / "ca.crt")))
    assert not await stores(url)  # the system's CAs


async def test_a_certificate_for_another_name_is_not_believed(url: str, folder: Path) -> None:
    named = redis_url_with_ca(url, str(folder / "ca.crt"))
    assert await stores(named.replace("127.0.0.1", "localhost"))
    assert not await stores(named.replace("127.0.0.1", "127.0.0.1.nip.invalid"))
    with acl_server() as server, tls_relay(server.socket, _for_another_name(folder)) as port:
        assert not await stores(redis_url_with_ca(server.tls_url(port), str(folder / "ca.crt")))


def _for_another_name(folder: Path) -> Path:
    other = folder.parent / "other-name"
    shutil.copytree(folder, other)
    for kind in ("crt", "key"):
        (other / f"client.{kind}").replace(other / f"server.{kind}")
    return other


async def test_a_new_ca_is_believed_once_its_file_is_there(tmp_path: Path) -> None:
    ours, new = made(tmp_path / "ours"), made(tmp_path / "new")
    with acl_server() as server, tls_relay(server.socket, new) as port:
        url = redis_url_with_ca(server.tls_url(port), str(ours / "ca.crt"))
        assert not await stores(url)
        exchange(ours, new)
        assert await stores(url)


@pytest.mark.parametrize(
    "option",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=optional",
        "ssl_check_hostname=False",
        "ssl_check_hostname=0",
        "ssl_cert_reqs=x",
    ],
)
def test_a_url_cannot_switch_the_check_off(option: str) -> None:
    with pytest.raises(ConfigurationError, match="must not switch off"):
        checked_url(f"rediss://:secret@10.0.0.9:6379/0?{option}")
    with pytest.raises(ConfigurationError, match="must not switch off"):
        checked_url(f"rediss://:secret@10.0.0.9:6379/0?ssl_ca_certs=/a&{option}")


def test_mistakes_are_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs a redis-url that begins with rediss"):
        redis_url_with_ca("redis://:secret@10.0.0.9:6379", "ca.crt")
    with pytest.raises(ConfigurationError, match="CA certificate cannot be read"):
        redis_url_with_ca("rediss://:secret@10.0.0.9:6379", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="needs a password"):
        checked_url("redis://10.0.0.9:6379")


async def test_debians_redis_with_tls_of_its_own(tmp_path: Path) -> None:
    """The same without a relay, with a server's own TLS."""
    if (binary := shutil.which("redis-server")) is None:
        pytest.skip("no redis-server is installed here; the relay stands for it in the other tests")
    folder = made(tmp_path)
    with ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = [f"tls-port {port}", f"tls-cert-file {folder}/server.crt", f"tls-key-file {folder}/server.key"]
        settings += [f"tls-ca-cert-file {folder}/ca.crt", "tls-auth-clients no"]
        server = stack.enter_context(acl_server(*settings, binary=binary))
        assert await stores(redis_url_with_ca(server.tls_url(port), str(folder / "ca.crt")))
        assert not await stores(server.tls_url(port))
