"""Offers of old work, to real stages: refused by a sound one, seen where one is not. What of the machine is ours."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import psutil
import pytest
from tests.fault.history import History, Probe
from tests.fault.looks import _busy, _offer, listening
from tests.support.pipeline import LocalPipeline, local_pipeline

from trireme_proto.v1.stage_pb2_grpc import StageStub
from trireme_worker.pack import Pack, default_pack
from trireme_worker.server import StageService


@pytest.fixture
async def local() -> AsyncIterator[LocalPipeline]:
    async with local_pipeline(Pack.open(default_pack()), 2) as local:
        await local.stages[1].cut()  # so that there has been an earlier epoch
        await local.rebuilt(1)
        yield local


async def offers(local: LocalPipeline, tmp_path: Path) -> list[Probe]:
    with History(tmp_path / "h.jsonl") as history:
        async with grpc.aio.insecure_channel(local.stages[0].own_address) as channel:
            await _offer(StageStub(channel), "node-1", history)
        return [event for event in history.events if isinstance(event, Probe)]


async def test_a_stage_refuses_work_of_an_old_epoch_and_goes_on(local: LocalPipeline, tmp_path: Path) -> None:
    answer = local.submit([0, 300, 301], 40)
    found = await offers(local, tmp_path)
    assert [(probe.epoch, probe.offered, probe.accepted) for probe in found] == [(2, 1, False), (2, 1, False)]
    assert len(await answer.done()) == 40
    assert local.engine.epoch == 2


async def test_a_stage_that_takes_old_work_is_seen(local: LocalPipeline, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(StageService, "_check_place", lambda *_: None)
    assert [probe.accepted for probe in await offers(local, tmp_path)] == [False, True]


def test_ports_of_a_process() -> None:
    with socket.create_server(("127.0.0.77", 0)) as server:
        port = server.getsockname()[1]
        assert listening(os.getpid(), "127.0.0.77") == [port]
        assert listening(os.getpid(), "127.0.0.78") == []
    assert listening(os.getpid(), "127.0.0.77") == []


def test_time_that_the_host_gave_to_others_is_not_ours(monkeypatch) -> None:
    times = SimpleNamespace(user=4.0, nice=0.5, system=2.0, idle=90.0, irq=0.25, softirq=0.25)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    assert _busy() == 7.0
    times.steal = 3.0
    assert _busy() == 10.0
