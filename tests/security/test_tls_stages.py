"""Mutual TLS between stages and from the coordinator: a stage takes calls of the cluster's own kind alone."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from tests.security.certificates import exchange, made
from tests.support.pipeline import StageServer, local_pipeline

from trireme_proto.certificates import CertificateFiles, channel_credentials
from trireme_proto.errors import StartupError
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub, add_StageServicer_to_server
from trireme_worker.link import CHANNEL_OPTIONS
from trireme_worker.pack import Pack
from trireme_worker.stage_links import STAGE_NAME, opener, stage_server

PROMPT = [0, 300, 301, 302]


async def report(address: str, channel: grpc.aio.Channel) -> grpc.StatusCode:
    try:
        await StageStub(channel).Report(pb.ReportRequest(), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        await channel.close()
    return grpc.StatusCode.OK


def channel(address: str, files: CertificateFiles | None, name: str = STAGE_NAME) -> grpc.aio.Channel:
    if files is None:
        return grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
    options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name)]
    return grpc.aio.secure_channel(address, channel_credentials(files.current()), options)


async def test_the_tokens_are_those_of_plain_links(pack: Pack, tmp_path: Path) -> None:
    async with local_pipeline(pack, 3) as local:
        expected = await local.submit(PROMPT, 16).done()
    async with local_pipeline(pack, 3, tls_folder=str(made(tmp_path) / "stage")) as local:
        assert await local.submit(PROMPT, 16).done() == expected
        await local.emptied()


async def test_a_stage_refuses_everybody_but_stages_of_its_own_ca(pack: Pack, tmp_path: Path) -> None:
    ours, other = made(tmp_path / "ours"), made(tmp_path / "other")
    folder, ca = ours / "stage", str(ours / "ca.crt")
    refused = grpc.StatusCode.UNAVAILABLE  # in the handshake
    async with local_pipeline(pack, 1, tls_folder=str(folder)) as local:
        address = local.stages[0].own_address
        stage = CertificateFiles(ca, str(folder / "tls.crt"), str(folder / "tls.key"))
        assert await report(address, channel(address, stage)) == grpc.StatusCode.OK
        assert await report(address, channel(address, None)) == refused
        assert await report(address, channel(address, CertificateFiles(ca))) == refused
        strange = CertificateFiles(ca, str(other / "stage/tls.crt"), str(other / "stage/tls.key"))
        assert await report(address, channel(address, strange)) == refused
        for kind, code in (("client", grpc.StatusCode.PERMISSION_DENIED), ("server", refused)):  # of the same CA
            files = CertificateFiles(ca, str(ours / f"{kind}.crt"), str(ours / f"{kind}.key"))
            assert await report(address, channel(address, files)) == code


async def test_every_method_of_a_stage_is_guarded(pack: Pack, tmp_path: Path) -> None:
    folder = made(tmp_path)
    files = CertificateFiles(str(folder / "ca.crt"), str(folder / "client.crt"), str(folder / "client.key"))
    methods = pb.DESCRIPTOR.services_by_name["Stage"].methods
    assert len(methods) >= 7
    stage = StageServer(pack, range(pack.config.layers))
    server, port = stage_server("127.0.0.1", str(folder / "stage"))
    add_StageServicer_to_server(stage.service, server)
    await server.start()
    async with channel(f"127.0.0.1:{port}", files) as opened:
        for method in methods:
            call = opened.stream_stream(f"/trireme.v1.Stage/{method.name}", lambda message: b"", bytes)
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await call(iter([None]), timeout=10).read()
            assert told.value.code() == grpc.StatusCode.PERMISSION_DENIED, method.name
    await server.stop(None)
    await stage.stop()


async def test_a_coordinator_believes_no_stage_of_another_ca_or_name(pack: Pack, tmp_path: Path) -> None:
    ours, other = made(tmp_path / "ours"), made(tmp_path / "other")
    for kind in ("crt", "key"):
        (other / "stage" / f"tls.{kind}").write_bytes((ours / f"server.{kind}").read_bytes())
    (other / "stage/ca.crt").write_bytes((ours / "ca.crt").read_bytes())
    async with local_pipeline(pack, 1, tls_folder=str(ours / "stage")) as local:
        address = local.stages[0].own_address
        assert await report(address, opener(str(ours / "stage"))(address)) == grpc.StatusCode.OK
        assert await report(address, opener(str(other / "stage"))(address)) == grpc.StatusCode.UNAVAILABLE
    server, port = stage_server("127.0.0.1", str(other / "stage"))  # the server's certificate, on a stage's port
    await server.start()
    address = f"127.0.0.1:{port}"
    assert await report(address, opener(str(ours / "stage"))(address)) == grpc.StatusCode.UNAVAILABLE
    await server.stop(None)


async def test_certificates_are_exchanged_while_an_answer_is_computed(pack: Pack, tmp_path: Path) -> None:
    """The running epoch keeps its connections; the next one, after a loss, is built on the new certificates."""
    folder, new = made(tmp_path / "used"), made(tmp_path / "new")
    async with local_pipeline(pack, 2) as local:
        expected = await local.submit(PROMPT, 200).done()
    async with local_pipeline(pack, 2, tls_folder=str(folder / "stage")) as local:
        answer = local.submit(PROMPT, 200)
        await answer.until(lambda so_far: len(so_far.tokens) >= 5)
        epoch = local.engine.epoch
        exchange(folder, new)
        await answer.until(lambda so_far: len(so_far.tokens) >= 20)
        assert local.engine.epoch == epoch
        await local.stages[1].cut()
        assert await answer.done() == expected
        assert local.engine.epoch > epoch


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "node-1"])
def test_a_stage_does_not_listen_beyond_its_machine_without_tls(host: str) -> None:
    with pytest.raises(StartupError, match=r"--stage-tls-dir.*--insecure-no-stage-tls"):
        stage_server(host, "")


def test_a_folder_that_is_no_use_is_said_so_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: no such file or directory") as told:
        stage_server("127.0.0.1", str(tmp_path))
    assert str(tmp_path) not in str(told.value)
