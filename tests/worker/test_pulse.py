"""A stage's signs of life: its progress moves within a step, and an answer never waits for the computation."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest
from tests.support.packs import bundled
from tests.support.waiting import eventually

from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub, add_StageServicer_to_server
from trireme_worker.batch import Batch, Row
from trireme_worker.link import CHANNEL_OPTIONS, SERVER_OPTIONS
from trireme_worker.server import StageService
from trireme_worker.stage import StageModel
from trireme_worker.stepper import Stepper


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_within_a_step(threads: int) -> None:
    """Seen from another thread while the kernels run: several values within one step. Often the step is over before the
    other thread has its turn; once it must have looked in time.
    """
    assert any(len(seen_within_a_step(threads)) > 2 for _ in range(50))


def seen_within_a_step(threads: int) -> set[int]:
    """What another thread saw beside the values before and after."""
    model = StageModel(bundled(), range(3), threads=threads, kv_tokens=512, slots=1)
    batch = Batch((Row(0, 0, 200),))
    hidden = model.embed(np.zeros(200, np.int32))
    model.reserve(batch)
    seen, over = set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(model.pulse)
            time.sleep(0)

    looking = threading.Thread(target=look)
    before = model.pulse
    looking.start()
    model.forward(batch, hidden)
    over.set()
    looking.join()
    after = model.pulse
    model.close()
    assert after - before == 5 * 3  # four products and attention
    return seen - {before, after}


async def test_an_answer_does_not_wait_for_the_computation() -> None:
    model = StageModel(bundled(), range(2), kv_tokens=64, slots=1)
    service, hold, held = StageService(Stepper(model)), threading.Event(), threading.Event()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_StageServicer_to_server(service, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()

    def stand_still() -> None:
        held.set()
        hold.wait()

    try:
        async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:

            async def pulse() -> pb.PulseResponse:
                return await StageStub(channel).Pulse(pb.PulseRequest(), timeout=60)

            assert not (await pulse()).busy
            working = service._compute.in_order(stand_still)

            async def busy() -> bool:
                return (await pulse()).busy

            await eventually(busy)
            first, second = await pulse(), await pulse()
            assert first.progress == second.progress
            hold.set()
            await working
            after = await pulse()
            assert not after.busy
            assert after.progress > first.progress
    finally:
        hold.set()
        await server.stop(None)
        await service.close()
        model.close()
