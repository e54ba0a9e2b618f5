"""Stages of modelled compute and an engine in this process, with real gRPC between them, and requests to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Items
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from random import Random

import grpc

from trireme_coordinator.bench.modelled import VOCABULARY, ModelledStage
from trireme_coordinator.engine import Engine
from trireme_coordinator.placement import partition
from trireme_coordinator.scheduler import Finish, SamplingParams, SchedulerConfig, Sequence
from trireme_coordinator.simulation import StageTimes
from trireme_coordinator.telemetry import StepReport
from trireme_proto.errors import TriremeError
from trireme_proto.load import Arrival, Record
from trireme_proto.v1.stage_pb2_grpc import add_StageServicer_to_server
from trireme_worker.link import SERVER_OPTIONS
from trireme_worker.pack import ModelConfig
from trireme_worker.server import StageService
from trireme_worker.stepper import Stepper

_LOOPBACK = "127.0.0.1"
_START_SECONDS = 30.0


class Harness:
    """A running engine over modelled stages; see `harness`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, arrivals: Items[Arrival]) -> list[Record]:
        """Sends each request when it is due, and returns when all have ended."""
        loop = asyncio.get_running_loop()
        started, listeners = loop.time(), []
        for arrival in arrivals:
            await asyncio.sleep(max(0.0, started + arrival.at - loop.time()))
            listeners.append(self._submit(arrival, started + arrival.at))
        for listener in listeners:
            await listener.done.wait()
        return [shifted(listener.record, -started) for listener in listeners]

    def _submit(self, arrival: Arrival, scheduled: float) -> Recorder:
        listener = Recorder(Record(scheduled, arrival.prompt))
        try:
            self._engine.submit(_request(arrival), listener)
        except TriremeError as error:
            listener.failed(error)
        return listener


def _request(arrival: Arrival) -> Sequence:
    random = Random(arrival.seed)
    prompt = [random.randrange(VOCABULARY) for _ in range(arrival.prompt)]
    return Sequence(prompt, SamplingParams(1.0, 0, 1.0, arrival.seed), arrival.output)


@asynccontextmanager
async def harness(shape: ModelConfig, times: Items[StageTimes], config: SchedulerConfig) -> AsyncIterator[Harness]:
    """Starts a stage for each of `times`; everything has ended when the context is left."""
    model = replace(shape, layers=len(times))
    async with AsyncExitStack() as stack:
        ranges = partition([1] * len(times), len(times))
        kv_tokens = config.pages * 16
        stages = [
            ModelledStage(model, layers, each, kv_tokens=kv_tokens, slots=config.slots)
            for layers, each in zip(ranges, times, strict=True)
        ]
        addresses = [await served(Stepper(stage), stack) for stage in stages]

        async def launch() -> list[str]:
            return addresses

        engine = Engine(config, launch)
        await runs(engine, stack)
        yield Harness(engine)


async def served(stepper: Stepper, stack: AsyncExitStack) -> str:
    """The address at which a stage is served while the stack stands."""
    service = StageService(stepper)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_StageServicer_to_server(service, server)
    port = server.add_insecure_port(f"{_LOOPBACK}:0")
    await server.start()
    stack.push_async_callback(service.close)
    stack.push_async_callback(server.stop, None)
    return f"{_LOOPBACK}:{port}"


async def runs(engine: Engine, stack: AsyncExitStack) -> None:
    """Returns when the engine is ready; it runs while the stack stands."""
    task = asyncio.ensure_future(engine.run())
    stack.push_async_callback(_ended, task)
    async with asyncio.timeout(_START_SECONDS):
        await engine.ready.wait()


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Recorder:
    """A listener that notes when tokens come."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.done = asyncio.Event()
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        record.sent = self._now()

    def admitted(self) -> None:
        """Nothing to note."""

    def timed(self, *, prefill: bool, tokens: int, step: StepReport) -> None:
        """Nothing to note."""

    def token(self, token_id: int) -> Finish | None:  # noqa: ARG002
        """Notes it."""
        self.record.take(self._now(), 1)
        return None

    def finished(self, reason: Finish) -> None:  # noqa: ARG002
        """The answer is complete."""
        self.record.ended = self._now()
        self.done.set()

    def failed(self, error: TriremeError) -> None:
        """The answer ends with an error."""
        self.record.error, self.record.ended = error.reason, self._now()
        self.done.set()


def shifted(record: Record, seconds: float) -> Record:
    """The record on a clock that is so many seconds ahead."""
    return replace(
        record,
        scheduled=record.scheduled + seconds,
        sent=record.sent + seconds,
        times=[time + seconds for time in record.times],
        ended=None if record.ended is None else record.ended + seconds,
    )
