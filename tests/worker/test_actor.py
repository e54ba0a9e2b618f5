"""A worker process's life: load, serve, stop, and what can go wrong at the start."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.support.packs import bundled
from tests.support.waiting import eventually

from trireme_proto.errors import PackNotFound, StartupError
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub
from trireme_worker import actor
from trireme_worker.actor import StageProcess, StageSettings
from trireme_worker.link import CHANNEL_OPTIONS, forward_to


def settings(**changes: object) -> StageSettings:
    pack = bundled()
    one = StageSettings(
        pack=str(pack.path),
        pack_sha256=pack.sha256,
        first_layer=0,
        end_layer=2,
        threads=2,
        kv_tokens=64,
        kv_dtype="float32",
        layout="packed",
        slots=2,
        host="127.0.0.1",
    )
    return dataclasses.replace(one, **changes)


@pytest.fixture
def process() -> Iterator[StageProcess]:
    one = StageProcess(settings())
    yield one
    one.stop()


def report(address: str) -> pb.ReportResponse:
    async def ask() -> pb.ReportResponse:
        async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
            return await StageStub(channel).Report(pb.ReportRequest(), timeout=60)

    return asyncio.run(ask())


def test_it_serves_where_it_says_until_it_is_stopped(process: StageProcess) -> None:
    before = set(threading.enumerate())
    address = process.start()
    assert address.startswith("127.0.0.1:")
    assert (report(address).kv_pages_total, report(address).kv_pages_used) == (4, 0)
    process.stop()
    process.stop()
    assert {t.name for t in set(threading.enumerate()) - before if t.name in {"serve", "kernel_0", "stage_0"}} == set()
    with pytest.raises(grpc.aio.AioRpcError):
        report(address)


def test_starting_twice_at_once_makes_one_stage(process: StageProcess) -> None:
    with ThreadPoolExecutor(2) as callers:
        first, second = callers.map(lambda _: process.start(), range(2))
    assert first == second == process.start()


def test_it_can_be_started_again(process: StageProcess) -> None:
    process.start()
    process.stop()
    assert report(process.start()).kv_pages_total == 4


def test_attached_while_somebody_sends() -> None:
    process = StageProcess(settings(end_layer=bundled().config.layers))
    assert not process.attached()
    address = process.start()
    assert not process.attached()

    async def drive() -> None:
        async def attached() -> bool:
            return process.attached()

        async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
            await StageStub(channel).Configure(pb.ConfigureRequest(epoch=1))
            async with forward_to(address, 1):
                await eventually(attached)

    asyncio.run(drive())
    process.stop()
    assert not process.attached()


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"pack_sha256": "0" * 64}, StartupError, "another model pack"),
        ({"pack": "/nowhere/at/all"}, PackNotFound, "no pack"),
        ({"host": "192.0.2.1", "plain_links": True}, StartupError, "cannot listen on the address of its node"),
        ({"host": "192.0.2.1"}, StartupError, "need mutual TLS"),
    ],
)
def test_what_can_go_wrong(changes: dict[str, object], error: type[StartupError], why: str) -> None:
    process = StageProcess(settings(**changes))
    for _ in range(2):  # it says so each time, and never hangs
        with pytest.raises(error, match=why):
            process.start()
    assert not process.attached()
    process.stop()


@pytest.mark.parametrize(
    ("layout", "held"),
    [("packed", "2bit"), ("2bit", "2bit"), ("1.6bit", "1.6bit"), ("auto", "1.6bit"), ("auto", "2bit")],
)
def test_weights_have_the_layout_that_is_asked_for(
    layout: str, held: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto`: what the CPU prefers. A change shows in the log, layer by layer."""
    monkeypatch.setattr(actor, "preferred_layout", lambda: held)
    caplog.set_level("INFO")
    made = []
    real = actor.StageModel
    monkeypatch.setattr(actor, "StageModel", lambda *args, **how: made.append(how["layout"]) or real(*args, **how))
    actor.load(settings(layout=layout)).close()
    assert made[0] in ((None,) if layout == "packed" else (held,))
    lines = [record.message for record in caplog.records if "laid out anew" in record.message]
    assert len(lines) == (2 if held == "1.6bit" else 0)  # the pack has 2bit
    assert not lines or max(lines).endswith("2 of 2 layers")


def test_a_corrupt_layer_is_not_served(tmp_path: Path) -> None:
    copy = tmp_path / "pack"
    shutil.copytree(bundled().path, copy)
    layer = copy / "layers" / "00001.safetensors"
    data = bytearray(layer.read_bytes())
    data[-1] ^= 1
    layer.chmod(0o644)
    layer.write_bytes(data)
    with pytest.raises(StartupError):
        StageProcess(settings(pack=str(copy))).start()
    process = StageProcess(settings(pack=str(copy), first_layer=2, end_layer=4))  # which does not need that file
    process.start()
    process.stop()


def test_any_fault_while_starting_to_serve_is_raised_by_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a fault for the test")

    monkeypatch.setattr(actor, "add_StageServicer_to_server", fault)
    with pytest.raises(ZeroDivisionError):
        StageProcess(settings()).start()
