"""Stages of a pipeline in this process: real stage services over real gRPC on loopback, an engine on top, no Ray.

async with local_pipeline(pack, stages=2) as local:
    answer = local.submit([0, 300, 301], max_tokens=8)
    tokens = await answer.done()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tests.support.listeners import Answer
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

from trireme_coordinator.engine import Engine
from trireme_coordinator.loss import StageLoss
from trireme_coordinator.page_fetching import Choose, quicker
from trireme_coordinator.placement import partition
from trireme_coordinator.scheduler import PageKeys, SamplingParams, SchedulerConfig
from trireme_coordinator.scheduler import Sequence as Request
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub, add_StageServicer_to_server
from trireme_worker.actor import page_store
from trireme_worker.kv_cache import pages_for
from trireme_worker.pack import Pack
from trireme_worker.page_redis import StoreSettings
from trireme_worker.server import StageService
from trireme_worker.stage import StageModel
from trireme_worker.stage_links import opener, stage_server
from trireme_worker.stepper import Stepper

GREEDY = SamplingParams(0.0, 0, 1.0, 0)
SLOTS = 16
KV_TOKENS = 4096


def sampled(seed: int) -> SamplingParams:
    """Sampling with everything switched on."""
    return SamplingParams(0.9, 50, 0.95, seed)


class StageServer:
    """One stage: model, service, server, and in front of it a proxy that can be cut."""

    def __init__(
        self,
        pack: Pack,
        layers: range,
        *,
        threads: int = 1,
        kv_dtype: str = "float32",
        store: StoreSettings | None = None,
        tls_folder: str = "",
    ) -> None:
        self.model = StageModel(pack, layers, threads=threads, kv_tokens=KV_TOKENS, slots=SLOTS, kv_dtype=kv_dtype)
        self.pages = page_store(self.model, pack.sha256, store)
        self.stepper = Stepper(self.model, self.pages)
        self.service = StageService(self.stepper, opener(tls_folder))
        self._tls_folder = tls_folder
        self._server, self._port = stage_server("127.0.0.1", tls_folder)
        self._proxy = Proxy("")
        self.own_address = ""
        self.alive = False

    @property
    def address(self) -> str:
        """HOST:PORT for the pipeline."""
        return self._proxy.address

    async def start(self) -> None:
        add_StageServicer_to_server(self.service, self._server)
        self.own_address = f"127.0.0.1:{self._port}"
        await self._server.start()
        self._proxy = Proxy(self.own_address)
        await self._proxy.start()
        self.alive = True

    async def cut(self) -> None:
        """Nobody reaches the stage any more through `address`; the stage itself lives on."""
        self.alive = False
        await self._proxy.cut()

    async def stall(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self.alive = False
        self._proxy.stall()

    async def stop(self) -> None:
        """Ends the stage in mid-work."""
        self.alive = False
        await self._server.stop(None)
        await self.service.close()
        await self._proxy.cut()
        if self.pages is not None:
            await asyncio.to_thread(self.pages.close)
        self.model.close()

    async def report(self) -> pb.ReportResponse:
        """What the stage says about itself, asked past the proxy."""
        async with opener(self._tls_folder)(self.own_address) as channel:
            return await StageStub(channel).Report(pb.ReportRequest(), timeout=60)


class LocalPipeline:
    """Stages that can be lost, and an engine that runs on them."""

    def __init__(
        self,
        pack: Pack,
        stages: int,
        *,
        threads: int,
        chunk: int,
        queue: int,
        speculation: bool,
        kv_dtype: str = "float32",
        store: StoreSettings | None = None,
        choose: Choose = quicker,
        tls_folder: str = "",
    ) -> None:
        self.pack = pack
        self.ranges = partition([1] * pack.config.layers, stages)
        self.stages: list[StageServer] = []
        self.launches = 0
        self.answers: list[tuple[Request, Answer]] = []
        self._threads = threads
        self._all: list[StageServer] = []
        config = SchedulerConfig(
            stages, SLOTS, pages_for(KV_TOKENS), pack.config.context, chunk, queue, speculation=speculation, ahead=True
        )
        self._kv_dtype, self._store, self._tls_folder = kv_dtype, store, tls_folder
        self.discarded: list[StageLoss] = []
        keys = PageKeys(b"secret") if store else None
        self.engine = Engine(
            config, self.launch, discard=self.discard, keys=keys, choose=choose, opened=opener(tls_folder)
        )

    async def launch(self) -> list[str]:
        """Starts the stages that are not alive; the engine's launcher."""
        self.launches += 1
        for i, layers in enumerate(self.ranges):
            if i == len(self.stages) or not self.stages[i].alive:
                stage = StageServer(
                    self.pack,
                    layers,
                    threads=self._threads,
                    kv_dtype=self._kv_dtype,
                    store=self._store,
                    tls_folder=self._tls_folder,
                )
                await stage.start()
                self._all.append(stage)
                self.stages[i : i + 1] = [stage]
        return [stage.address for stage in self.stages]

    async def discard(self, losses: Sequence[StageLoss]) -> None:
        """Nobody reaches these stages any more; the next launch starts new ones."""
        self.discarded += losses
        for loss in losses:
            await self.stages[loss.stage].cut()

    async def stop(self) -> None:
        for stage in self._all:
            await stage.stop()

    def submit(
        self,
        tokens: Sequence[int],
        max_tokens: int,
        sampling: SamplingParams = GREEDY,
        *,
        eos: frozenset[int] = frozenset(),
        session: str = "",
        tenant: str = "",
        answer: Answer | None = None,
    ) -> Answer:
        """Starts a request."""
        request, answer = Request(list(tokens), sampling, max_tokens, eos, session, tenant), answer or Answer()
        self.answers.append((request, answer))
        self.engine.submit(request, answer)
        return answer

    def request(self, answer: Answer) -> Request:
        """The sequence that an answer belongs to."""
        return next(request for request, other in self.answers if other is answer)

    def drop(self, answer: Answer) -> None:
        """As a caller who goes away."""
        self.engine.drop(self.request(answer))

    async def all_reports(self, condition: Callable[[pb.ReportResponse], bool], seconds: float = 10) -> None:
        """Asks the stages until the condition holds on all of them."""

        async def holds() -> bool:
            return all([condition(await stage.report()) for stage in self.stages])

        await eventually(holds, seconds)

    async def rebuilt(self, epoch: int) -> None:
        """Returns when the pipeline is complete at a later epoch than `epoch`."""

        async def holds() -> bool:
            return self.engine.epoch > epoch and self.engine.ready.is_set()

        await eventually(holds)

    async def emptied(self) -> None:
        """Returns when nothing is held anywhere; the books must add up."""
        await self.all_reports(lambda report: not report.kv_pages_used and not report.slots_used)
        for stage in self.stages:
            assert (await stage.report()).integrity_error == ""
        assert self.engine.scheduler.check_integrity() == ""
        assert self.engine.scheduler.budget.pages_reserved == 0


@asynccontextmanager
async def local_pipeline(
    pack: Pack,
    stages: int = 2,
    *,
    threads: int = 1,
    chunk: int = 256,
    queue: int = 64,
    speculation: bool = True,
    kv_dtype: str = "float32",
    store: StoreSettings | None = None,
    choose: Choose = quicker,
    tls_folder: str = "",
) -> AsyncIterator[LocalPipeline]:
    """A running engine over `stages` stages; everything has ended when the context is left."""
    local = LocalPipeline(
        pack,
        stages,
        threads=threads,
        chunk=chunk,
        queue=queue,
        speculation=speculation,
        kv_dtype=kv_dtype,
        store=store,
        choose=choose,
        tls_folder=tls_folder,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(local.stop)
        async with running(local.engine):
            yield local


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    """The engine's `run` in the background, ready."""
    task = asyncio.ensure_future(engine.run())
    try:
        async with asyncio.timeout(90):
            await engine.ready.wait()
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
