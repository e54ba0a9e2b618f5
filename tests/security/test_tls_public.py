"""TLS and mutual TLS on the public port: who gets in, what others are told, and certificates exchanged on the way."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.security.certificates import exchange, made
from tests.support.pipeline import LocalPipeline, local_pipeline
from tests.support.serving import Served, identity, serving

from trireme import AsyncClient, Client
from trireme.errors import ServerUnreachable
from trireme_coordinator.store.memory_requests import MemoryRequestStore
from trireme_proto.certificates import CertificateFiles
from trireme_worker.pack import Pack

PROMPT = "Once upon a time"
TOKENS = 150


def server_files(folder: Path, *, mutual: bool = False) -> CertificateFiles:
    ca = str(folder / "ca.crt") if mutual else ""
    return CertificateFiles(ca, str(folder / "server.crt"), str(folder / "server.key"))


def as_client(folder: Path) -> dict[str, str]:
    return {name: str(folder / file) for name, file in (("cert", "client.crt"), ("key", "client.key"))}


@asynccontextmanager
async def served(pack: Pack, folder: Path, *, mutual: bool = False) -> AsyncIterator[Served]:
    store = MemoryRequestStore(identity(pack))
    options: dict[str, Any] = {"ca": folder / "ca.crt"} | (as_client(folder) if mutual else {})
    async with (
        local_pipeline(pack, 1, speculation=False) as local,
        serving(local, store, tls=server_files(folder, mutual=mutual), mutual=mutual, **options) as server,
    ):
        slow_down(local)
        yield server


def slow_down(local: LocalPipeline) -> None:
    """A step takes 20 ms, so that a stream of 150 tokens is still there after some handshakes."""
    stepper, step = local.stages[0].stepper, local.stages[0].stepper.step

    def slow(*args: Any) -> Any:
        time.sleep(0.02)
        return step(*args)

    stepper.step = slow  # type: ignore[method-assign]


async def refused(address: str, **options: Any) -> str:
    """What a client of each kind is told; the same."""
    messages = []
    async with AsyncClient(address, timeout=20, patience=0, **options) as client:
        with pytest.raises(ServerUnreachable) as told:
            await client.status()
        messages.append(told.value.message)
    with Client(address, timeout=20, patience=0, **options) as blocking, pytest.raises(ServerUnreachable) as told:
        await asyncio.to_thread(blocking.status)
    assert [told.value.message] == messages
    return messages[0]


async def test_tls_lets_in_who_believes_the_ca_and_tells_others_why_not(pack: Pack, tmp_path: Path) -> None:
    ours, other = made(tmp_path / "ours"), made(tmp_path / "other")
    async with served(pack, ours) as server:
        assert (await server.client.generate(PROMPT, max_tokens=4).result()).usage.completion_tokens == 4
        with Client(server.address, timeout=20, ca=ours / "ca.crt") as client:
            assert (await asyncio.to_thread(client.status)).ready
        assert "not one of the given CA" in await refused(server.address, ca=other / "ca.crt")
        assert "may want TLS" in await refused(server.address)
        name = server.address.replace("127.0.0.1", "127.0.0.2")
        assert "No Trireme server" in await refused(name, ca=ours / "ca.crt")  # listens where it was told to


async def test_a_certificate_for_another_name_is_refused(pack: Pack, tmp_path: Path) -> None:
    folder = made(tmp_path)
    for kind in ("crt", "key"):
        (folder / f"client.{kind}").replace(folder / f"server.{kind}")
    async with served(pack, folder) as server:
        told = await refused(server.address, ca=folder / "ca.crt")
    assert "not for this name" in told or "not valid" in told


async def test_mutual_tls_lets_in_clients_of_the_ca_alone(pack: Pack, tmp_path: Path) -> None:
    ours, other = made(tmp_path / "ours"), made(tmp_path / "other")
    async with served(pack, ours, mutual=True) as server:
        assert (await server.client.status()).ready
        assert "a certificate of this client" in await refused(server.address, ca=ours / "ca.crt")
        assert "a certificate of this client" in await refused(server.address, ca=ours / "ca.crt", **as_client(other))


async def test_certificates_are_exchanged_while_a_stream_runs(pack: Pack, tmp_path: Path) -> None:
    """A new CA and all that is of it: the stream goes on, its client's next call and new clients use the new ones, and
    the old ones open nothing any more.
    """
    folder, old, new = made(tmp_path / "used"), tmp_path / "old", made(tmp_path / "new")
    exchange(_folder(old), folder)
    async with served(pack, folder, mutual=True) as server:
        expected = (await server.client.generate(PROMPT, max_tokens=TOKENS, seed=1, ignore_eos=True).result()).text
        async with server.client.generate(PROMPT, max_tokens=TOKENS, seed=1, ignore_eos=True) as stream:
            heard = (await anext(stream)).text
            exchange(folder, new)
            assert (await server.client.status()).ready
            async with AsyncClient(server.address, timeout=20, ca=new / "ca.crt", **as_client(new)) as client:
                assert (await client.status()).load.running == 1  # the stream, still
            assert "not one of the given CA" in await refused(server.address, ca=old / "ca.crt", **as_client(old))
            assert "certificate" in await refused(server.address, ca=new / "ca.crt", **as_client(old))
            async for chunk in stream:
                heard += chunk.text
        assert heard == expected


def test_files_that_could_not_be_read_are_read_when_they_are_given_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, new = made(tmp_path / "used"), made(tmp_path / "new")
    files = server_files(folder)
    before = files.current()
    exchange(folder, new)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        assert files.current() is before
    os.chown(folder / "server.key", os.getuid(), os.getgid())
    assert files.current().key == (new / "server.key").read_bytes()


async def test_a_half_exchanged_set_is_not_used(pack: Pack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, new = made(tmp_path / "used"), made(tmp_path / "new")
    async with served(pack, folder) as server:
        (new / "server.crt").replace(folder / "server.crt")
        async with AsyncClient(server.address, timeout=20, ca=folder / "ca.crt") as client:
            assert (await client.status()).ready
    assert "not of one pair" in caplog.text
    assert str(tmp_path) not in caplog.text


def _folder(path: Path) -> Path:
    (path / "stage").mkdir(parents=True)
    return path
